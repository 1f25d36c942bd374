"""What clients see of a model that every worker has failed to load."""

from __future__ import annotations

from fastapi.testclient import TestClient

from contracts.jobs.preparations import FAILED, Preparation
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from tests.support.requests import CONTROL

REASON = "it cannot be loaded: its files are unusable"


def report(queue: JobQueue, worker: str, *broken: str, state: str = "idle") -> None:
    preparing = [Preparation(name=name, state=FAILED, message=REASON) for name in broken]
    publish(queue.connection, WorkerReport(id=worker, state=state, preparing=preparing), 60)


def test_a_model_that_no_worker_can_load_is_unavailable_and_its_requests_are_refused(
    client: TestClient, queue: JobQueue
) -> None:
    report(queue, "one", "shapes-sdxl")
    report(queue, "two", "shapes-sdxl")
    report(queue, "three", state="starting")  # it may fail, too

    listed = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    assert (listed["shapes-sdxl"]["available"], listed["shapes-sdxl"]["unavailable_reason"]) == (False, REASON)
    assert (listed["shapes-sd3"]["available"], listed["shapes-sd3"]["unavailable_reason"]) == (True, None)
    refused = client.post("/v1/txt2img", json={"prompt": "a red circle"})
    assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
    assert [(problem["field"], problem["message"]) for problem in refused.json()["errors"]] == [("model", REASON)]
    assert int(refused.headers["retry-after"]) > 1
    assert client.get("/v1/jobs").json()["data"] == []


def test_what_one_worker_may_still_load_is_available(client: TestClient, queue: JobQueue) -> None:
    report(queue, "one", "shapes-sdxl")
    report(queue, "two")
    assert client.get("/v1/models/shapes-sdxl").json()["available"] is True
    assert client.post("/v1/txt2img", json={"prompt": "a red circle"}).status_code == 202


def test_a_controlnet_that_cannot_be_loaded_refuses_only_the_jobs_that_name_it(
    client: TestClient, queue: JobQueue
) -> None:
    report(queue, "one", "controlnet:shapes-sdxl-silhouette")
    refused = client.post("/v1/controlnet", json={"prompt": "a red circle", "controls": [CONTROL]})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (503, "controls")
    assert client.post("/v1/txt2img", json={"prompt": "a red circle"}).status_code == 202
