"""What the service does when its files, Redis, workers or parent process break, and how it recovers.

All tests share one service. The last two end it: what the first of them leaves is what the second one starts with.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from cli.supervisor.redis_server import RedisServer
from contracts.jobs.records import JobState
from contracts.leases.claims import Claims
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE, QueueSettings, SharedSettings
from tests.support.built_in import built_in_rows
from tests.support.running_service import RunningService
from tests.support.service_processes import is_alive, redis_process
from tests.support.waiting import wait_until

#: Long enough for a busy machine to extend it, short enough to be waited for.
LEASE_SECONDS = 4
#: Longer than a lease; thirty seconds in `make chaos`.
OUTAGE_SECONDS = float(os.environ.get("DARKROOM_CHAOS_OUTAGE_SECONDS", "6"))


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with a model and an adapter whose files break once it runs, with short leases and two attempts."""
    folder = tmp_path_factory.mktemp("fragile")
    built_in = BUILT_IN_CATALOGUE.parent
    rows = built_in_rows()
    shutil.copytree(built_in / "shapes-sdxl", folder / "broken")
    shutil.copy(built_in / "loras" / "shapes-sdxl-tint.safetensors", folder / "broken.safetensors")
    rows += (
        '\n[[models]]\nid = "broken"\nfamily = "sdxl"\nsource = "broken"\n'
        "defaults = { width = 64, height = 64 }\n"
        '\n[[loras]]\nid = "broken-lora"\nfamily = "sdxl"\nsource = "broken.safetensors"\n'
    )
    (folder / "catalogue.toml").write_text(rows, encoding="utf-8")
    environment = {
        "DARKROOM_CATALOGUE": str(folder / "catalogue.toml"),
        "DARKROOM_QUEUE_LEASE_SECONDS": str(LEASE_SECONDS),
        "DARKROOM_QUEUE_MAX_ATTEMPTS": "2",  # a worker takes seconds to start
    }
    running = RunningService(folder / "data", "--fsync", "always", environment=environment, forked=True)
    for file in (folder / "broken.safetensors", *(folder / "broken").rglob("*.safetensors")):
        file.write_bytes(b"not weights")
    yield running
    if running.process.poll() is None:
        running.stop()
    assert running.process.returncode == 0, running.log.read_text(errors="replace")[-3000:]


@pytest.fixture(scope="module")
def next_start(fragile: RunningService) -> Iterator[tuple[RunningService, str]]:
    """What is started on the same data after somebody has hung up on the service, and the job that ran then."""
    job = start_long_job(fragile, steps=60)
    fragile.process.send_signal(signal.SIGHUP)
    assert fragile.wait_for_end() == 0
    running = RunningService(fragile.data)
    yield running, job
    if running.process.poll() is None:
        running.stop()


def test_a_failure_has_a_code_and_does_not_change_the_images_of_later_jobs(fragile: RunningService) -> None:
    body = {"num_inference_steps": 2, "seed": 1}
    before = fragile.bytes_of(fragile.run("txt2img", **body))
    for fields, code in (
        ({"model": "broken"}, "model_load_failed"),
        ({"loras": [{"name": "broken-lora"}]}, "lora_damaged"),
    ):
        job = fragile.wait(fragile.submit("txt2img", **(body | fields))["id"])
        assert (job["status"], job["error"]["code"]) == ("failed", code)
        assert job["error"]["retryable"] is False
        assert "Traceback" not in job["error"]["message"]
        assert job["attempts"] == 1
    assert fragile.bytes_of(fragile.run("txt2img", **body)) == before


def test_a_model_that_broke_is_shown_with_its_reason_and_its_requests_are_refused(fragile: RunningService) -> None:
    seen: list[tuple[httpx.Response, dict[str, Any]]] = []

    def is_refused() -> bool:
        answer = fragile.http.post("/v1/txt2img", json={"prompt": "a red circle", "model": "broken"})
        if answer.status_code == 202:
            fragile.wait(answer.json()["id"])  # the first one finds out
        model = fragile.http.get("/v1/models/broken").json()
        seen.append((answer, model))
        return answer.status_code == 503 and not model["available"]

    wait_until(is_refused)
    refused, model = seen[-1]
    assert model["unavailable_reason"].startswith("broken cannot be loaded: ")
    assert "/" not in model["unavailable_reason"]
    assert refused.json()["code"] == "model_unavailable"
    assert [(problem["field"], problem["message"]) for problem in refused.json()["errors"]] == [
        ("model", model["unavailable_reason"])
    ]
    assert fragile.http.get("/v1/models/shapes-sdxl").json()["available"] is True


def test_other_users_can_read_nothing_of_the_data(fragile: RunningService) -> None:
    fragile.run("txt2img", num_inference_steps=2)
    found = [fragile.data, *fragile.data.rglob("*")]
    assert len(found) > 5
    assert [path for path in found if path.stat().st_mode & 0o077] == []


def test_a_running_job_is_cancelled_within_a_step_and_a_finished_one_cannot_be(fragile: RunningService) -> None:
    job = fragile.submit("txt2img", num_inference_steps=200, seed=1)
    wait_until(lambda: fragile.fetch(job["id"])["progress"]["step"] > 1)
    assert fragile.http.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
    ended = fragile.wait(job["id"], timeout_seconds=60)
    assert ended["status"] == "cancelled"
    assert ended["images"] == []
    done = fragile.run("txt2img", num_inference_steps=2)
    response = fragile.http.post(f"/v1/jobs/{done['id']}/cancel")
    assert (response.status_code, response.json()["code"]) == (409, "conflict")


def test_a_deadline_ends_a_job_that_is_still_running(fragile: RunningService) -> None:
    job = fragile.wait(fragile.submit("txt2img", num_inference_steps=200, deadline_seconds=1)["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "deadline_exceeded")


def test_a_redis_that_hangs_for_longer_than_a_lease_uses_up_no_attempt(
    fragile: RunningService,
) -> None:
    job = start_long_job(fragile, steps=60)
    redis = redis_process(fragile)
    redis.suspend()
    try:
        response = fragile.http.post("/v1/txt2img", json={"prompt": "a red circle"})
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
        assert int(response.headers["retry-after"]) >= 1
        assert fragile.http.get("/readyz").status_code == 503
        assert fragile.http.get("/healthz").status_code == 200
        time.sleep(OUTAGE_SECONDS)
    finally:
        redis.resume()
    done = fragile.wait(job)
    assert (done["status"], done["attempts"]) == ("completed", 1)
    assert fragile.http.get("/readyz").status_code == 200


def test_a_killed_redis_loses_no_running_or_waiting_job(fragile: RunningService) -> None:
    ids = [fragile.submit("txt2img", num_inference_steps=30, seed=number)["id"] for number in range(4)]
    (worker,) = fragile.http.get("/v1/workers").json()["data"]
    wait_until(lambda: fragile.fetch(ids[0])["progress"]["step"] > 2)
    redis_process(fragile).kill()
    ended = []
    for id in ids:
        while fragile.http.get(f"/v1/jobs/{id}").status_code == 503:
            time.sleep(0.1)
        ended.append(fragile.wait(id))
    assert [job["status"] for job in ended] == ["completed"] * 4
    assert [job["attempts"] for job in ended] == [1] * 4
    assert {job["receipt"]["worker"] for job in ended} == {worker["id"]}, "the worker did not survive"


class WorkerKiller(threading.Thread):
    """Thread that kills every worker that runs a given job."""

    def __init__(self, service: RunningService, job_id: str) -> None:
        super().__init__(daemon=True)
        self.killed_pids: set[int] = set()
        self._service = service
        self._job_id = job_id

    def run(self) -> None:
        while self._service.fetch(self._job_id)["status"] in ("queued", "running"):
            for worker in self._service.http.get("/v1/workers").json()["data"]:
                if self._job_id in worker["current_jobs"] and worker["pid"] not in self.killed_pids:
                    with suppress(psutil.NoSuchProcess):
                        psutil.Process(worker["pid"]).kill()
                        self.killed_pids.add(worker["pid"])
            time.sleep(0.1)


def test_a_job_that_kills_its_workers_fails_and_the_others_complete(fragile: RunningService) -> None:
    # A first job keeps the worker busy while the others come; then all are in flight together.
    fragile.submit("txt2img", num_inference_steps=15, seed=1)
    # The second has the most steps, so that a worker's report names it before it could end.
    ids = [fragile.submit("txt2img", num_inference_steps=steps)["id"] for steps in (30, 90, 30)]
    killer = WorkerKiller(fragile, ids[1])
    killer.start()
    ended = [fragile.wait(id, timeout_seconds=180) for id in ids]
    killer.join()
    assert [job["status"] for job in ended] == ["completed", "failed", "completed"]
    assert ended[1]["error"]["code"] == "worker_lost"
    assert ended[1]["attempts"] == len(killer.killed_pids) == 2
    assert max(ended[0]["attempts"], ended[2]["attempts"]) == 2
    assert not ended[0]["receipt"]["joined"]
    assert not ended[2]["receipt"]["joined"]
    folders = [fragile.data / "storage" / "images" / id for id in ids]
    attempts = [[path.parent.name for path in folder.rglob("*.png")] for folder in folders]
    assert attempts == [[str(ended[0]["attempts"])], [], [str(ended[2]["attempts"])]]


def test_hanging_up_leaves_a_job_to_the_next_start(next_start: tuple[RunningService, str]) -> None:
    service, job = next_start
    done = service.wait(job)
    assert (done["status"], done["attempts"]) == ("completed", 1), "hanging up has spent an attempt"


def test_killing_the_parent_ends_its_children_and_keeps_what_redis_has_answered(
    next_start: tuple[RunningService, str],
) -> None:
    service, _ = next_start
    job = start_long_job(service, steps=150)
    pids = [child.pid for child in psutil.Process(service.process.pid).children(recursive=True)]
    assert len(pids) >= 4
    service.process.kill()
    service.wait_for_end()
    wait_until(lambda: not [pid for pid in pids if is_alive(pid)])

    redis = RedisServer(service.data / "redis")
    redis.start()
    try:
        queue = JobQueue(SharedSettings(redis_url=redis.url))
        claims = Claims(queue.connection, QueueSettings(), "the next worker", ttl_seconds=60)
        wait_until(lambda: claims.reap() == (1, []))
        assert queue.fetch(job).state is JobState.QUEUED
        queue.close()
    finally:
        redis.stop()


def start_long_job(service: RunningService, steps: int) -> str:
    """The id of a job that is running."""
    id: str = service.submit("txt2img", num_inference_steps=steps, seed=1)["id"]
    wait_until(lambda: service.fetch(id)["progress"]["step"] > 1)
    return id
