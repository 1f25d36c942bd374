"""Jobs over HTTP: submitted, read, cancelled, completed by a worker."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.jobs.failures import RETRYABLE, FailureCode
from contracts.jobs.records import JobError, JobState, Progress
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.claims import reports
from tests.support.images import data_url, encode_solid
from tests.support.requests import BODIES, CONTROL, IMAGE, submit
from tests.support.scripted_worker import ScriptedWorker
from tests.support.worker_reports import report_worker

SMALL_MASK = data_url(encode_solid("L", (32, 32), 1))


@pytest.mark.parametrize("task", BODIES)
def test_a_job_of_every_task_is_accepted(client: TestClient, queue: JobQueue, task: str) -> None:
    response = client.post(f"/v1/{task}", json=BODIES[task] | {"seed": 7, "metadata": {"who": "me"}})

    job = response.json()
    address = f"http://testserver/v1/jobs/{job['id']}"
    assert response.status_code == 202
    assert response.headers["Location"] == address
    assert (job["status"], job["task"], job["model"]) == ("queued", task, "shapes-sdxl")
    others = {name: f"{address}/{name}" for name in ("rerun", "cancel")}
    assert job["links"].pop("events").startswith(f"{address}/events?expires=")
    assert job["links"] == {"self": address} | others
    assert job["queue"] == {"position": 1, "ahead": 0}
    assert job["metadata"] == {"who": "me"}
    record = queue.fetch(job["id"])
    assert (record.state, record.owner, record.parameters.seed) == (JobState.QUEUED, "local", 7)


def test_a_job_shows_every_field_of_the_contract(client: TestClient) -> None:
    job = client.get(f"/v1/jobs/{submit(client)['id']}").json()

    assert list(job) == [
        "id", "status", "task", "model", "created_at", "started_at", "finished_at", "expires_at", "progress",
        "queue", "images", "error", "receipt", "attempts", "metadata", "prompt_tokens",
        "negative_prompt_tokens", "links",
    ]  # fmt: skip
    assert job["progress"] == {
        "step": 0,
        "steps": 0,
        "fraction": 0.0,
        "eta_seconds": None,
        "eta_range_seconds": None,
        "eta_reason": "no worker that takes jobs is running",
    }
    assert abs((datetime.now(UTC) - datetime.fromisoformat(job["created_at"])).total_seconds()) < 60
    assert job["created_at"].endswith("Z")


def test_priority_deadline_and_response_format_are_recorded(client: TestClient, queue: JobQueue) -> None:
    id = submit(client, priority="high", deadline_seconds=60, response_format="b64_json")["id"]

    record = queue.fetch(id)

    assert (record.priority, record.response_format) == ("high", "b64_json")
    assert record.deadline_at == pytest.approx(record.created_at + 60)


def test_a_waiting_job_shows_its_queue_position(client: TestClient) -> None:
    jobs = [submit(client) for _ in range(3)]

    assert [job["queue"]["ahead"] for job in jobs] == [0, 1, 2]
    assert client.get(f"/v1/jobs/{jobs[2]['id']}").json()["queue"] == {"position": 3, "ahead": 2}


def test_a_waiting_job_shows_when_it_is_expected_to_complete(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    report_worker(queue, "scripted-worker", None, max_jobs=1, warm=["shapes-sdxl"])
    progress = submit(client, num_inference_steps=10)["progress"]
    assert (progress["eta_seconds"], progress["eta_range_seconds"]) == (None, None)
    assert progress["eta_reason"].startswith("no similar job has been measured yet")
    worker.complete(worker.claim(), denoise_seconds=2.0)

    first, second = (submit(client, num_inference_steps=20) for _ in range(2))

    assert first["progress"]["eta_seconds"] == pytest.approx(4.0)
    assert second["progress"]["eta_seconds"] == pytest.approx(8.0)
    assert second["progress"]["eta_range_seconds"] == pytest.approx([6.0, 8.0 / 0.75], rel=0.01)
    assert "eta_reason" not in second["progress"]
    assert client.get(f"/v1/jobs/{second['id']}").json()["progress"] == second["progress"]


def test_a_running_job_shows_its_progress(client: TestClient, queue: JobQueue, worker: ScriptedWorker) -> None:
    report_worker(queue, "scripted-worker", None)
    submit(client, num_inference_steps=6)
    worker.complete(worker.claim(), denoise_seconds=1.0)
    id = submit(client)["id"]
    claim = worker.claim()
    worker.claims.advance(reports(claim, progress=Progress(step=3, steps=12, fraction=0.25, eta_seconds=9.0)))

    job = client.get(f"/v1/jobs/{id}").json()

    assert (job["status"], job["queue"], job["attempts"]) == ("running", None, 1)
    # Nine more steps at the measured pace, whatever the worker had said.
    assert job["progress"] == {
        "step": 3,
        "steps": 12,
        "fraction": 0.25,
        "eta_seconds": pytest.approx(1.5),
        "eta_range_seconds": pytest.approx([1.125, 2.0]),
    }
    assert job["started_at"] >= job["created_at"]


def test_a_completed_job_has_images_and_a_receipt(client: TestClient, worker: ScriptedWorker) -> None:
    id = submit(client, seed=40, num_images=2)["id"]
    data = worker.complete(worker.claim())

    job = client.get(f"/v1/jobs/{id}").json()

    assert job["status"] == "completed"
    assert [image["seed"] for image in job["images"]] == [40, 41]
    assert job["images"][1].pop("url").startswith(f"http://testserver/v1/jobs/{id}/images/1?")
    assert job["images"][1] == {
        "width": 64,
        "height": 64,
        "seed": 41,
        "format": "png",
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    assert job["receipt"]["seeds"] == [40, 41]
    assert job["receipt"]["parameters"]["prompt"] == "a red circle"
    assert job["finished_at"] < job["expires_at"]
    assert list(job["links"]) == ["self", "events", "rerun"]


def test_a_receipt_of_an_older_release_is_shown(
    client: TestClient, worker: ScriptedWorker, queue: JobQueue
) -> None:
    id = submit(client)["id"]
    worker.complete(worker.claim())
    placement = {"unet": "streamed", "text_encoder": "visit", "text_encoder_3": "absent"}
    receipt = client.get(f"/v1/jobs/{id}").json()["receipt"] | {"placement": placement}
    older = receipt | {"departures": ["VAE in tiles"], "rung": "streamed", "homes": placement}
    del older["deviations"]
    queue.connection.hset(keys.JOB + id, "receipt", json.dumps(older))

    assert client.get(f"/v1/jobs/{id}").json()["receipt"] == receipt | {"deviations": ["VAE in tiles"]}


def test_images_are_returned_as_base64_if_requested(client: TestClient, worker: ScriptedWorker) -> None:
    id = submit(client, response_format="b64_json")["id"]
    assert "b64_json" not in client.get(f"/v1/jobs/{id}").text
    data = worker.complete(worker.claim())

    (image,) = client.get(f"/v1/jobs/{id}").json()["images"]

    assert base64.b64decode(image["b64_json"]) == data


def test_a_job_with_a_lost_image_can_still_be_read(
    client: TestClient, worker: ScriptedWorker, queue: JobQueue, storage: Storage
) -> None:
    id = submit(client, response_format="b64_json")["id"]
    worker.complete(worker.claim())
    storage.delete(queue.fetch(id).images[0].key)

    job, image = client.get(f"/v1/jobs/{id}"), client.get(f"/v1/jobs/{id}/images/0")

    assert (job.status_code, "b64_json" in job.text) == (200, False)
    assert (image.status_code, image.json()["detail"]) == (404, f"image '{id}/0' does not exist")


def test_a_failed_job_says_why(client: TestClient, worker: ScriptedWorker) -> None:
    id = submit(client)["id"]
    code = FailureCode.OUT_OF_MEMORY
    worker.claims.fail(worker.claim(), JobError(code=code, message="too large", retryable=code in RETRYABLE))

    response = client.get(f"/v1/jobs/{id}")

    job = response.json()
    assert (response.status_code, job["status"], job["images"]) == (200, "failed", [])
    assert job["error"] == {"code": "out_of_memory", "message": "too large", "retryable": True}


def test_a_waiting_job_is_cancelled_at_once_and_cancelling_again_changes_nothing(client: TestClient) -> None:
    id = submit(client)["id"]

    answers = [client.post(f"/v1/jobs/{id}/cancel") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["status"] for answer in answers] == ["cancelled", "cancelled"]
    assert client.get(f"/v1/jobs/{id}").json()["status"] == "cancelled"


def test_a_running_job_is_told_to_stop(client: TestClient, worker: ScriptedWorker) -> None:
    id = submit(client)["id"]
    claim = worker.claim()

    response = client.post(f"/v1/jobs/{id}/cancel")

    assert (response.status_code, response.json()["status"]) == (200, "running")
    assert worker.claims.advance(reports(claim, progress=Progress())) == ["cancel"]


def test_a_finished_job_cannot_be_cancelled(client: TestClient, worker: ScriptedWorker) -> None:
    id = submit(client)["id"]
    worker.complete(worker.claim())

    response = client.post(f"/v1/jobs/{id}/cancel")

    assert (response.status_code, response.json()["code"]) == (409, "conflict")


def test_an_unknown_job_is_not_found(client: TestClient, subtests: pytest.Subtests) -> None:
    for id in ["unknown", "0" * 32, "a:b", "%2e%2e"]:
        with subtests.test(id=id):
            for response in (
                client.get(f"/v1/jobs/{id}"),
                client.get(f"/v1/jobs/{id}/images/0"),
                client.post(f"/v1/jobs/{id}/cancel"),
            ):
                assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_another_owners_job_is_not_found(client: TestClient, queue: JobQueue) -> None:
    mine = queue.fetch(submit(client)["id"])
    theirs = queue.submit(mine.parameters, owner="somebody")

    assert client.get(f"/v1/jobs/{theirs.id}").status_code == 404
    assert client.post(f"/v1/jobs/{theirs.id}/cancel").status_code == 404
    assert queue.fetch(theirs.id).state is JobState.QUEUED


def test_a_bad_request_is_refused_and_leaves_nothing_behind(
    client: TestClient, queue: JobQueue, settings: SharedSettings, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[str, dict[str, Any], int, str, str]] = [
        ("txt2img", {"model": "none"}, 422, "invalid_request", "model"),
        ("txt2img", {"width": 65}, 422, "invalid_request", "width"),
        ("txt2img", {"scheduler": "flow_euler"}, 422, "invalid_request", "scheduler"),
        ("txt2img", {"image": IMAGE}, 422, "invalid_request", "image"),
        ("img2img", {"image": "https://example.org/a.png"}, 422, "invalid_request", "image"),
        ("img2img", {"image": "bm8gaW1hZ2U="}, 415, "not_a_picture", "image"),
        ("img2img", {"image": IMAGE, "strength": 0.01}, 422, "invalid_request", "strength"),
        ("inpaint", {"mask_image": SMALL_MASK}, 422, "invalid_request", "mask_image"),
        ("controlnet", {"controls": [CONTROL | {"image": "!"}]}, 422, "invalid_request", "controls.0.image"),
        (
            "controlnet",
            {"controls": [CONTROL | {"controlnet": "x"}]},
            422,
            "invalid_request",
            "controls.0.controlnet",
        ),
    ]
    for task, changes, status, code, field in cases:
        with subtests.test(task=task, changes=changes, status=status, code=code, field=field):
            response = client.post(f"/v1/{task}", json=BODIES[task] | changes)

            problem = response.json()
            assert (response.status_code, problem["code"]) == (status, code)
            assert field in [entry["field"] for entry in problem["errors"]]
            assert queue.connection.keys("*") == []
            assert not [path for path in settings.data.rglob("*") if path.is_file()]


def test_nothing_is_queued_while_the_storage_is_unavailable(
    client: TestClient, queue: JobQueue, settings: SharedSettings
) -> None:
    (settings.data / "storage").write_text("a file where a folder should be")

    response = client.post("/v1/img2img", json=BODIES["img2img"])

    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert queue.connection.keys("rq:*") == queue.connection.keys("darkroom:job*") == []


def test_a_body_that_is_not_json_is_unreadable(client: TestClient) -> None:
    response = client.post("/v1/txt2img", content=b"{", headers={"Content-Type": "application/json"})

    assert (response.status_code, response.json()["code"]) == (400, "unreadable_body")


def test_a_form_is_an_unsupported_media_type(client: TestClient) -> None:
    response = client.post("/v1/txt2img", data={"prompt": "x"})

    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


BODY_WITHOUT_TYPE = [
    ("/v1/txt2img", b'{"prompt": "x"}'),
    ("/v1/plan", b'{"task": "txt2img", "prompt": "x"}'),
    ("/v1/images/generations", b'{"prompt": "x"}'),
    ("/v1/images/edits", b'{"prompt": "x"}'),
    ("/v1/uploads", b"x"),
    ("/v1/loras", b"x"),
]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_of_a_type_that_any_page_may_send_is_refused(client: TestClient, kind: str | None) -> None:
    for path, body in BODY_WITHOUT_TYPE:
        response = client.post(path, content=body, headers={} if kind is None else {"Content-Type": kind})

        assert response.status_code == 415, path
        assert f"the body {f'is {kind}' if kind else 'has no content type'}; send " in response.text


def test_a_form_is_refused_where_json_is_expected(client: TestClient) -> None:
    for path in ("/v1/txt2img", "/v1/plan", "/v1/images/generations"):
        assert client.post(path, data={"prompt": "x"}, files={"a": b"x"}).status_code == 415


def test_a_body_over_the_limit_is_refused(settings: SharedSettings) -> None:
    with TestClient(create_app(ApiSettings(shared=settings, max_body_bytes=1024))) as client:
        response = client.post("/v1/txt2img", json={"prompt": "x" * 2000})

    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_links_use_the_host_of_the_request(settings: SharedSettings) -> None:
    with TestClient(create_app(ApiSettings(shared=settings, allowed_hosts=["images.example"]))) as client:
        response = client.post("/v1/txt2img", json=BODIES["txt2img"], headers={"Host": "images.example:81"})

    assert response.headers["Location"].startswith("http://images.example:81/v1/jobs/")


def test_links_use_the_public_url_if_it_is_set(settings: SharedSettings) -> None:
    public = ApiSettings(shared=settings, public_url="https://images.example/darkroom/")
    with TestClient(create_app(public)) as client:
        job = client.post("/v1/txt2img", json=BODIES["txt2img"]).json()

    assert job["links"]["self"] == f"https://images.example/darkroom/v1/jobs/{job['id']}"


def test_images_are_not_sent_through_the_queue(client: TestClient, queue: JobQueue) -> None:
    job = submit(client, "inpaint")

    record = queue.fetch(job["id"])

    assert len(record.parameters.model_dump_json()) < 2000
    assert record.parameters.image is not None
    assert record.parameters.image.startswith("inputs/")


@pytest.mark.parametrize("task", BODIES)
def test_a_job_of_any_task_is_made_at_one_address(client: TestClient, queue: JobQueue, task: str) -> None:
    response = client.post("/v1/jobs", json={"task": task, **BODIES[task]})

    assert (response.status_code, response.json()["task"]) == (202, task)
    assert response.headers["Location"].endswith(response.json()["id"])
    assert queue.fetch(response.json()["id"]).parameters.task == task


def test_a_job_of_any_task_can_be_waited_for_and_is_made_once(client: TestClient, worker: ScriptedWorker) -> None:
    headers = {"Prefer": "wait", "Idempotency-Key": "one"}
    thread = threading.Thread(target=lambda: worker.complete(worker.claim_next()))
    thread.start()
    answers = [client.post("/v1/jobs", json={"task": "txt2img", "prompt": "a"}, headers=headers) for _ in range(2)]
    thread.join()

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[1].headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("body", [{"prompt": "a"}, {"task": "video", "prompt": "a"}])
def test_a_job_without_a_known_task_is_refused_with_the_tasks(client: TestClient, body: dict[str, str]) -> None:
    error = client.post("/v1/jobs", json=body).json()["errors"][0]

    assert (error["field"], error["allowed"]) == ("task", [*BODIES, "edit", "upscale", "erase", "preprocess"])
