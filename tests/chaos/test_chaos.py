"""Jobs in a service whose processes and connections keep failing; every job must end exactly once.

`make test` runs a short form; `make chaos` a long one (`DARKROOM_CHAOS_JOBS`, `DARKROOM_CHAOS_SEED`).
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest
from redis import Redis

from tests.chaos.monkey import Monkey
from tests.support.receiver import Receiver, Reply, receiving
from tests.support.running_service import Json, RunningService
from tests.support.service_processes import is_alive, redis_url
from tests.support.waiting import wait_until

JOBS = int(os.environ.get("DARKROOM_CHAOS_JOBS", "8"))
SEED = int(os.environ.get("DARKROOM_CHAOS_SEED", str(random.randrange(2**32))))
WORKERS = 2
#: Maximum time for the jobs to end after the last failure: leases, restarts of workers, the queue.
PATIENCE_SECONDS = 240
ENDS = ("completed", "failed", "cancelled")


@pytest.mark.timeout(PATIENCE_SECONDS + 60 + 10 * JOBS)
def test_every_accepted_job_ends_exactly_once_whichever_process_is_killed(tmp_path: Path) -> None:
    print(f"chaos seed {SEED}, {JOBS} jobs: DARKROOM_CHAOS_SEED={SEED} repeats the order of failures")
    environment = {
        "DARKROOM_QUEUE_LEASE_SECONDS": "2",
        "DARKROOM_API_ANONYMOUS_CALLS_PER_MINUTE": "0",
        # Workers are killed at random here, not by their jobs, so no job may fail for it.
        "DARKROOM_QUEUE_MAX_ATTEMPTS": "1000",
        "DARKROOM_OUTBOUND_NETWORKS": '["127.0.0.0/8"]',
        "DARKROOM_WEBHOOK_TIMEOUT_SECONDS": "1",
        "DARKROOM_WEBHOOK_PAUSES_SECONDS": str([0.5] * 100),
    }
    service = RunningService(
        tmp_path / "data", "--workers", str(WORKERS), "--fsync", "always", environment=environment, forked=True
    )
    monkey = Monkey(service, SEED, pause_seconds=(0.5, 3.0))
    with receiving() as receiver:
        receiver.plans["/hook"] = [Reply(200 if number % 3 else 500) for number in range(3 * JOBS)]
        check(service, monkey, receiver)


def check(service: RunningService, monkey: Monkey, receiver: Receiver) -> None:
    """Send jobs while the monkey runs, and check that every job ends properly."""
    try:
        monkey.start()
        accepted, refused = send(service, f"{receiver.url}/hook")
        monkey.stop()
        ended = settle(service, accepted)
        settle_webhooks(service, ended, receiver)
        counts = Counter(job["status"] for job in ended)
        attempts = Counter(job["attempts"] for job in ended)
        print(f"failures {dict(monkey.failures)}; accepted {len(accepted)}, refused with 503 {refused}")
        print(f"ends {dict(counts)}, attempts {dict(attempts)}")
        assert set(counts) <= {"completed", "cancelled"}, [job for job in ended if job["status"] == "failed"]
        check_stored_state(service, ended)
        stop_during_a_job(service)
    finally:
        monkey.stop()
        status = service.stop()
    assert status == 0, service.log.read_text(errors="replace")[-3000:]


def send(service: RunningService, webhook: str) -> tuple[list[str], int]:
    """Send short jobs, some of them cancelled; returns the accepted ids and how many were refused."""
    rng, refused = random.Random(SEED), 0
    accepted: list[str] = []
    while len(accepted) < JOBS:
        body: Json = {"prompt": "a red circle", "num_inference_steps": rng.choice([2, 4, 30])}
        body["webhook"] = {"url": webhook}
        if rng.random() < 0.5:
            body["seed"] = rng.randrange(100)
        try:
            response = service.http.post("/v1/txt2img", json=body)
            if response.status_code == 202:
                accepted.append(response.json()["id"])
                if rng.random() < 0.1:
                    service.http.post(f"/v1/jobs/{accepted[-1]}/cancel")
            else:
                assert response.status_code == 503, response.text
                refused += 1
        except httpx.TransportError:
            refused += 1
        time.sleep(rng.uniform(0.1, 0.8))
    return accepted, refused


def settle(service: RunningService, accepted: list[str]) -> list[Json]:
    """Wait for the end of every accepted job."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    ended: dict[str, Json] = {}
    while len(ended) < len(accepted):
        assert time.monotonic() < deadline, [service.fetch(id) for id in accepted if id not in ended][:3]
        for id in accepted:
            if id in ended:
                continue
            response = service.http.get(f"/v1/jobs/{id}")
            if response.status_code == 200 and response.json()["status"] in ENDS:
                ended[id] = response.json()
        time.sleep(0.5)
    return list(ended.values())


def settle_webhooks(service: RunningService, ended: list[Json], receiver: Receiver) -> None:
    """Wait until exactly one message for the end of each job has been delivered, in any number of attempts."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    for job in ended:
        while not all(delivery["status"] == "delivered" for delivery in deliveries_of(service, job)):
            assert time.monotonic() < deadline, service.fetch(job["id"])
            time.sleep(0.2)
        (delivery,) = deliveries_of(service, job)
        messages = [message for message in receiver.received if message.headers["webhook-id"] == delivery["id"]]
        bodies = [json.loads(message.body) for message in messages]
        assert {(body["id"], body["status"]) for body in bodies} == {(job["id"], job["status"])}
    assert {json.loads(message.body)["id"] for message in receiver.received} <= {job["id"] for job in ended}


def deliveries_of(service: RunningService, job: Json) -> list[Json]:
    deliveries: list[Json] = service.fetch(job["id"])["webhook"]["deliveries"]
    return deliveries


def check_stored_state(service: RunningService, ended: list[Json]) -> None:
    """Check that each job is in one registry and its stream has one end, and that no file or key is orphaned."""
    by_id = {job["id"]: job for job in ended}
    with Redis.from_url(redis_url(service), decode_responses=True) as redis:
        wait_until_idle(redis)
        for id, job in by_id.items():
            kinds = [fields["event"] for _, fields in redis.xrange(f"darkroom:events:{id}")]
            assert [kind for kind in kinds if kind in ENDS] == [job["status"]], (id, kinds)
        registered: Counter[str] = Counter()
        for name in ("finished", "failed", "canceled", "wip"):
            for key in redis.scan_iter(f"rq:{name}:*"):
                registered.update(str(member).partition(":")[0] for member in redis.zrange(key, 0, -1))
        assert registered == Counter(by_id.keys())
        assert list(redis.scan_iter("rq:queue:*")) == []
        assert list(redis.scan_iter("rq:job:msg_*")) == []
        records = {key.rpartition(":")[2] for key in redis.scan_iter("darkroom:job:*")}
        assert records == set(by_id)
    stored = Counter(path.parts[-3] for path in (service.data / "storage" / "images").rglob("*.png"))
    assert stored == Counter(id for id, job in by_id.items() if job["status"] == "completed")


def stop_during_a_job(service: RunningService) -> None:
    """Stop the service while a job runs: it is finished, and no process is left."""
    job = service.submit("txt2img", num_inference_steps=30, seed=1)["id"]
    wait_until(lambda: service.fetch(job)["progress"]["step"] > 1)
    parent = psutil.Process(service.process.pid)
    pids = [parent.pid, *(child.pid for child in parent.children(recursive=True))]
    assert len(pids) >= 5
    assert service.stop() == 0, service.log.read_text(errors="replace")[-3000:]
    wait_until(lambda: not [pid for pid in pids if is_alive(pid)])
    assert len(list((service.data / "storage" / "images" / job).rglob("0.png"))) == 1


def wait_until_idle(redis: Redis) -> None:
    """Wait for the workers, which may still be cleaning up after the last job has ended."""
    deadline = time.monotonic() + 60
    while redis.zcard("darkroom:leases"):
        assert time.monotonic() < deadline, "leases are still held"
        time.sleep(0.1)
    time.sleep(1)
