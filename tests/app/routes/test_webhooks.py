"""Webhooks in requests: what is accepted, what is refused before queueing, and what a job shows of them."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.queue.client import JobQueue
from contracts.settings import OutboundSettings, SharedSettings
from tests.support.requests import BODIES
from tests.support.scripted_worker import ScriptedWorker

HOOK = {"url": "https://8.8.8.8/hook"}


def post(client: TestClient, webhook: Any, **fields: Any) -> Any:
    return client.post("/v1/txt2img", json={"prompt": "x", "webhook": webhook} | fields)


def test_every_task_accepts_a_webhook_and_its_job_shows_it(client: TestClient, subtests: pytest.Subtests) -> None:
    for task in BODIES:
        with subtests.test(task=task):
            answer = client.post(f"/v1/{task}", json=BODIES[task] | {"webhook": HOOK})

            assert answer.status_code == 202, answer.text
            ends = ["completed", "failed", "cancelled"]
            assert answer.json()["webhook"] == {"url": HOOK["url"], "events": ends, "deliveries": []}


def test_a_job_without_a_webhook_shows_none(client: TestClient) -> None:
    assert "webhook" not in client.post("/v1/txt2img", json={"prompt": "x"}).json()


def test_a_pending_message_is_shown(client: TestClient, queue: JobQueue) -> None:
    id = post(client, HOOK | {"events": ["queued"]}).json()["id"]

    (delivery,) = client.get(f"/v1/jobs/{id}").json()["webhook"]["deliveries"]

    assert delivery.pop("id").startswith(f"msg_{id}_")
    assert delivery.pop("updated_at")
    pending = {"event": "queued", "status": "pending", "attempts": 0, "status_code": None, "error": None}
    assert delivery == pending


def test_an_invalid_webhook_is_refused_by_field(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    for webhook, field in [
        ({}, "webhook.url"),
        ("https://8.8.8.8/", "webhook"),
        (HOOK | {"secret": "x"}, "webhook.secret"),
        (HOOK | {"events": []}, "webhook.events"),
        (HOOK | {"events": ["progress"]}, "webhook.events.0"),
        (HOOK | {"events": "completed"}, "webhook.events"),
        ({"url": ""}, "webhook.url"),
        ({"url": "https://8.8.8.8/" + "x" * 2048}, "webhook.url"),
        ({"url": "http://8.8.8.8/"}, "webhook.url"),
        ({"url": "ftp://8.8.8.8/"}, "webhook.url"),
        ({"url": "https://localhost/"}, "webhook.url"),
        ({"url": "https://127.0.0.1/"}, "webhook.url"),
        ({"url": "https://2130706433/"}, "webhook.url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "webhook.url"),
        ({"url": "https://169.254.169.254/latest/meta-data/"}, "webhook.url"),
        ({"url": "https://8.8.8.8:22/"}, "webhook.url"),
        ({"url": "https://name:word@8.8.8.8/"}, "webhook.url"),
        ({"url": 5}, "webhook.url"),
    ]:
        with subtests.test(webhook=webhook, field=field):
            answer = post(client, webhook)

            assert (answer.status_code, [entry["field"] for entry in answer.json()["errors"]]) == (422, [field])
            assert queue.connection.keys("*") == []


def test_a_dry_run_refuses_it_too(client: TestClient) -> None:
    body = {"task": "txt2img", "prompt": "x", "webhook": {"url": "https://127.0.0.1/"}}

    problem = client.post("/v1/plan", json=body).json()

    assert (problem["status"], problem["errors"][0]["field"]) == (422, "webhook.url")


def test_networks_that_the_operator_allows_are_accepted(settings: SharedSettings) -> None:
    outbound = OutboundSettings.model_validate({"networks": ["127.0.0.0/8", "::1/128"]})
    with TestClient(create_app(ApiSettings(shared=settings, outbound=outbound))) as client:
        for url in ("http://127.0.0.1:9000/", "http://localhost:9000/", "https://[::1]:9000/x?y=z"):
            assert post(client, {"url": url}).status_code == 202
        assert post(client, {"url": "https://10.0.0.1/"}).status_code == 422


def test_a_webhook_is_no_part_of_a_receipt(client: TestClient, worker: ScriptedWorker) -> None:
    id = post(client, HOOK).json()["id"]
    worker.complete(worker.claim())
    assert "webhook" not in client.get(f"/v1/jobs/{id}").json()["receipt"]["parameters"]


def test_a_rerun_does_not_inherit_the_webhook(client: TestClient, worker: ScriptedWorker) -> None:
    id = post(client, HOOK).json()["id"]
    worker.complete(worker.claim())

    silent = client.post(f"/v1/jobs/{id}/rerun")
    notified = client.post(f"/v1/jobs/{id}/rerun", json={"webhook": HOOK})

    assert (silent.status_code, notified.status_code) == (202, 202)
    assert "webhook" not in silent.json()
    assert notified.json()["webhook"]["url"] == HOOK["url"]


def test_the_schema_of_a_model_has_the_webhook_field(client: TestClient) -> None:
    schema = client.get("/v1/models/shapes-sdxl").json()["schemas"]["txt2img"]

    events = schema["$defs"]["WebhookEvent"]["enum"]
    assert "webhook" in schema["properties"]
    assert events == ["queued", "started", "completed", "failed", "cancelled"]


def test_the_openapi_document_describes_the_message(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    operation = document["webhooks"]["job"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/JobView"
    }
    headers = {parameter["name"] for parameter in operation["parameters"]}
    assert headers == {"webhook-id", "webhook-timestamp", "webhook-signature", "darkroom-event"}
    assert set(operation["responses"]) == {"204", "410", "default"}
    assert client.post("/job").status_code == 404
