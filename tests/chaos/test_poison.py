"""A job that kills every worker that runs it, among harmless jobs; and a Redis that is killed while jobs run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from tests.support.running_service import RunningService
from tests.support.service_processes import redis_process

#: Several leases; thirty seconds in `make chaos`.
OUTAGE_SECONDS = float(os.environ.get("DARKROOM_CHAOS_OUTAGE_SECONDS", "5"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One service for all tests of this file; each test leaves it healthy."""
    environment = {"DARKROOM_QUEUE_LEASE_SECONDS": "2"}
    running = RunningService(
        tmp_path_factory.mktemp("poison") / "data", "--fsync", "always", environment=environment
    )
    yield running
    assert running.stop() == 0, running.log.read_text(errors="replace")[-3000:]


def test_a_killed_redis_loses_no_running_or_waiting_job(service: RunningService) -> None:
    ids = [service.submit("txt2img", num_inference_steps=30, seed=number)["id"] for number in range(4)]
    (worker,) = service.http.get("/v1/workers").json()["data"]
    while service.fetch(ids[0])["progress"]["step"] < 3:
        time.sleep(0.02)
    redis_process(service).kill()
    ended = []
    for id in ids:
        while service.http.get(f"/v1/jobs/{id}").status_code == 503:
            time.sleep(0.1)
        ended.append(service.wait(id))
    assert [job["status"] for job in ended] == ["completed"] * 4
    assert [job["attempts"] for job in ended] == [1] * 4
    assert {job["receipt"]["worker"] for job in ended} == {worker["id"]}, "the worker did not survive"


def test_a_redis_that_hangs_for_longer_than_a_lease_uses_up_no_attempt(service: RunningService) -> None:
    job = service.submit("txt2img", num_inference_steps=150, seed=1)
    while service.fetch(job["id"])["progress"]["step"] < 3:
        time.sleep(0.02)
    redis = redis_process(service)
    redis.suspend()
    response = service.http.post("/v1/txt2img", json={"prompt": "a red circle"})
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    time.sleep(OUTAGE_SECONDS)
    redis.resume()
    done = service.wait(job["id"])
    assert (done["status"], done["attempts"]) == ("completed", 1)


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
            time.sleep(0.05)


def test_a_job_that_kills_its_workers_fails_and_the_others_complete(service: RunningService) -> None:
    # A first job keeps the worker busy while the others come; then all are in flight together.
    service.submit("txt2img", num_inference_steps=60, seed=1)
    # Long enough for a worker's report to name them.
    ids = [service.submit("txt2img", num_inference_steps=150)["id"] for _ in range(3)]
    killer = WorkerKiller(service, ids[1])
    killer.start()
    ended = [service.wait(id, timeout_seconds=180) for id in ids]
    killer.join()
    assert [job["status"] for job in ended] == ["completed", "failed", "completed"]
    assert ended[1]["error"]["code"] == "worker_lost"
    assert ended[1]["attempts"] == len(killer.killed_pids) == 3
    assert max(ended[0]["attempts"], ended[2]["attempts"]) == 2
    assert not ended[0]["receipt"]["joined"]
    assert not ended[2]["receipt"]["joined"]
    assert list((service.data / "storage" / "images" / ids[1]).rglob("*.png")) == []
