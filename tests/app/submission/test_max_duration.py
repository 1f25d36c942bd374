"""A job that is predicted to take too long is refused before it is queued; one that does take too long ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.jobs.records import Progress
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.settings import SharedSettings
from tests.support.claims import reports
from tests.support.scripted_worker import ScriptedWorker

JOB = {"prompt": "x", "width": 64, "height": 64, "num_inference_steps": 10, "num_images": 1}
MAX_SECONDS = 60.0


@pytest.fixture
def client(settings: SharedSettings, worker: ScriptedWorker) -> Iterator[TestClient]:
    """An API in whose service 2 s were measured for each step of a 64 × 64 image, before it started."""
    api = ApiSettings(shared=settings, max_job_seconds=MAX_SECONDS)
    with TestClient(create_app(api)) as earlier:
        earlier.post("/v1/txt2img", json=JOB)
    worker.complete(worker.claim(), denoise_seconds=20.0)
    with TestClient(create_app(api)) as client:
        yield client


def test_a_job_that_would_take_too_long_is_refused_with_what_would_fit(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    for changes, field, allowed in [
        ({"num_images": 8, "num_inference_steps": 10}, "num_images", "1–3"),
        ({"num_images": 8, "num_inference_steps": 200}, "num_inference_steps", "1–30"),
        ({"num_inference_steps": 31}, "num_inference_steps", "1–30"),
        ({"width": 128, "height": 128, "num_inference_steps": 20}, "num_inference_steps", "1–7"),
    ]:
        with subtests.test(changes=changes, field=field, allowed=allowed):
            jobs = len(client.get("/v1/jobs").json()["data"])

            refused = client.post("/v1/txt2img", json=JOB | changes)

            assert refused.status_code == 422
            (problem,) = refused.json()["errors"]
            assert (problem["field"], problem["allowed"]) == (field, allowed)
            assert "a job may take 60 s here" in problem["message"]
            assert len(client.get("/v1/jobs").json()["data"]) == jobs
            plan = client.post("/v1/plan", json={"task": "txt2img"} | JOB | changes).json()
            assert (plan["runs"], plan["field"]) == (False, field)


def test_what_would_fit_is_accepted(client: TestClient) -> None:
    assert client.post("/v1/txt2img", json=JOB | {"num_images": 3}).status_code == 202
    assert client.post("/v1/txt2img", json=JOB | {"num_inference_steps": 30}).status_code == 202


def test_a_job_that_takes_twice_as_long_as_any_may_is_stopped(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    client.post("/v1/txt2img", json=JOB)
    claim = worker.claim()
    step = Progress(step=1, steps=10, fraction=0.1)
    verdicts = []
    # For how long others ran in its place does not matter.
    queue.connection.hset(keys.JOB + claim.job.id, "started_at", f"{queue.now() - 100 * MAX_SECONDS:.6f}")
    for seconds in (MAX_SECONDS, 2 * MAX_SECONDS + 1):
        verdicts += worker.claims.advance(reports(claim, progress=step, used_seconds=seconds))

    assert verdicts == ["on", "overtime"]
