"""A job that kills every worker that runs it, among harmless jobs; Redis killed or hung; all processes killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from cli.supervisor.redis_server import RedisServer
from contracts.jobs.records import JobState
from contracts.leases.claims import Claims
from contracts.queue.client import JobQueue
from contracts.settings import QueueSettings, SharedSettings
from tests.support.running_service import RunningService
from tests.support.service_processes import is_alive, redis_process
from tests.support.waiting import wait_until

#: Long enough for a busy machine to extend it, short enough to be waited for.
LEASE_SECONDS = 4
#: Longer than a lease; thirty seconds in `make chaos`.
OUTAGE_SECONDS = float(os.environ.get("DARKROOM_CHAOS_OUTAGE_SECONDS", "6"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One service for all tests of this file; the last one kills it."""
    # Two attempts, because a worker takes seconds to start.
    environment = {"DARKROOM_QUEUE_LEASE_SECONDS": str(LEASE_SECONDS), "DARKROOM_QUEUE_MAX_ATTEMPTS": "2"}
    running = RunningService(
        tmp_path_factory.mktemp("poison") / "data", "--fsync", "always", environment=environment
    )
    yield running
    if running.process.poll() is None:
        running.stop()


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
            time.sleep(0.1)


def test_a_job_that_kills_its_workers_fails_and_the_others_complete(service: RunningService) -> None:
    # A first job keeps the worker busy while the others come; then all are in flight together.
    service.submit("txt2img", num_inference_steps=40, seed=1)
    # The second has the most steps, so that a worker's report names it before it could end.
    ids = [service.submit("txt2img", num_inference_steps=steps)["id"] for steps in (50, 120, 50)]
    killer = WorkerKiller(service, ids[1])
    killer.start()
    ended = [service.wait(id, timeout_seconds=180) for id in ids]
    killer.join()
    assert [job["status"] for job in ended] == ["completed", "failed", "completed"]
    assert ended[1]["error"]["code"] == "worker_lost"
    assert ended[1]["attempts"] == len(killer.killed_pids) == 2
    assert max(ended[0]["attempts"], ended[2]["attempts"]) == 2
    assert not ended[0]["receipt"]["joined"]
    assert not ended[2]["receipt"]["joined"]
    folders = [service.data / "storage" / "images" / id for id in ids]
    attempts = [[path.parent.name for path in folder.rglob("*.png")] for folder in folders]
    assert attempts == [[str(ended[0]["attempts"])], [], [str(ended[2]["attempts"])]]


def test_killing_the_parent_ends_its_children_and_keeps_what_redis_has_answered(service: RunningService) -> None:
    """The last test: it ends the service that the others share."""
    job = service.submit("txt2img", num_inference_steps=150, seed=1)["id"]
    wait_until(lambda: service.fetch(job)["progress"]["step"] > 1)
    pids = [child.pid for child in psutil.Process(service.process.pid).children(recursive=True)]
    assert len(pids) >= 4
    os.kill(service.process.pid, signal.SIGKILL)
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
