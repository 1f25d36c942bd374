"""A dry run over HTTP: the same checks as for a job, the plan, and nothing queued or stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from tests.support.requests import BODIES, submit
from tests.support.scripted_worker import ScriptedWorker
from tests.support.worker_reports import LARGE, report_worker


def dry_run(client: TestClient, task: str = "txt2img", **body: Any) -> dict[str, Any]:
    response = client.post("/v1/plan", json={"task": task, **body})
    assert response.status_code == 200, response.text
    plan: dict[str, Any] = response.json()
    return plan


def test_every_task_can_be_planned_and_nothing_is_stored(
    client: TestClient, queue: JobQueue, settings: SharedSettings, subtests: pytest.Subtests
) -> None:
    for task in BODIES:
        with subtests.test(task=task):
            report_worker(queue, "w", 256)
            before = {path for path in Path(settings.data).rglob("*") if path.is_file()}
            plan = dry_run(client, task, **BODIES[task])
            assert (plan["object"], plan["task"], plan["runs"], plan["worker"]) == ("plan", task, True, "w")
            assert plan["plan"]["name"] == "all resident"
            assert plan["plan"]["peak_bytes"] <= plan["plan"]["budget_bytes"]
            placements = {part["name"]: part["placement"] for part in plan["plan"]["components"]}
            assert placements["vae"] == "device"
            assert any(name.startswith("controlnet:") for name in placements) is (task == "controlnet")
            assert client.get("/v1/jobs").json()["data"] == []
            assert {path for path in Path(settings.data).rglob("*") if path.is_file()} == before


def test_a_dry_run_refuses_what_the_job_would_be_refused_for(client: TestClient) -> None:
    for body in ({"width": 65}, {"prompt": ""}, {"unknown": 1}, {"model": "none"}, {"scheduler": "flow_euler"}):
        whole = {"prompt": "a red circle", **body}
        tried = client.post("/v1/plan", json={"task": "txt2img", **whole})
        sent = client.post("/v1/txt2img", json=whole)
        assert tried.status_code == sent.status_code == 422
        assert tried.json()["errors"] == sent.json()["errors"]


def test_the_task_is_required(client: TestClient, subtests: pytest.Subtests) -> None:
    for task in [None, "unknown", 5]:
        with subtests.test(task=task):
            body = {"prompt": "a red circle"} | ({} if task is None else {"task": task})
            response = client.post("/v1/plan", json=body)
            assert response.status_code == 422
            assert response.json()["errors"][0]["field"] == "task"


def test_a_body_that_is_not_json_is_unreadable(client: TestClient) -> None:
    response = client.post("/v1/plan", content=b"{", headers={"Content-Type": "application/json"})
    assert response.status_code == 400


def test_a_request_that_no_worker_can_run_is_answered_with_the_reason_and_the_workers(
    client: TestClient, queue: JobQueue
) -> None:
    report_worker(queue, "small", 8)
    plan = dry_run(client, **LARGE)
    assert (plan["runs"], plan["field"], plan["worker"]) == (False, "width", None)
    assert plan["reason"] == client.post("/v1/txt2img", json=LARGE).json()["errors"][0]["message"]
    assert plan["plan"]["peak_bytes"] > plan["plan"]["budget_bytes"]
    assert [worker["runs"] for worker in plan["workers"]] == [False]


def test_workers_are_ordered_by_fit_then_warmth_then_idleness(client: TestClient, queue: JobQueue) -> None:
    report_worker(queue, "a-small", 1, warm=["shapes-sdxl"])
    report_worker(queue, "b-cold", 256)
    report_worker(queue, "c-busy", 256, state="busy", warm=["shapes-sdxl"])
    report_worker(queue, "d-idle", 256, warm=["shapes-sdxl"])
    plan = dry_run(client, **LARGE)
    assert [worker["worker"] for worker in plan["workers"]] == ["d-idle", "c-busy", "b-cold", "a-small"]
    assert (plan["worker"], plan["warm"]) == ("d-idle", True)


def test_without_workers_the_job_would_wait(client: TestClient) -> None:
    plan = dry_run(client, prompt="a red circle")
    assert (plan["runs"], plan["worker"], plan["plan"], plan["workers"]) == (True, None, None, [])
    assert "no worker is running" in plan["reason"]


def test_seconds_are_estimated_from_the_last_similar_job(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    body: dict[str, Any] = {"prompt": "a red circle", "num_inference_steps": 10}
    assert dry_run(client, **body)["estimated_seconds"] is None
    submit(client, **body)
    worker.complete(worker.claim(), denoise_seconds=5.0)
    assert dry_run(client, **{**body, "num_inference_steps": 20})["run_seconds"] == pytest.approx(10.0)


def test_a_dry_run_takes_no_idempotency_key(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    parameters = {
        name: [parameter["name"] for parameter in paths[name]["post"].get("parameters", [])]
        for name in paths
        if "post" in paths[name]
    }
    assert "idempotency-key" not in [name.lower() for name in parameters["/v1/plan"]]
    assert "idempotency-key" in [name.lower() for name in parameters["/v1/txt2img"]]
