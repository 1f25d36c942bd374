"""The heartbeat: extends leases, reaps those of lost workers, ends a process that hangs."""

from __future__ import annotations

import subprocess
import sys
import time

from contracts.metrics import Counters
from contracts.queue.client import JobQueue
from contracts.queue.leases import ClaimCriteria, Claims
from contracts.queue.records import JobState
from contracts.settings import QueueSettings, SharedSettings
from tests.support.parameters import parameters
from worker.loop.heartbeat import STALLED, Heartbeat
from worker.loop.progress import JobWatch
from worker.settings import WorkerSettings

LEASE_SECONDS = 0.3


def beat_for(queue: JobQueue, worker: str, forgotten: list[str]) -> tuple[Claims, Heartbeat]:
    claims = Claims(queue.connection, QueueSettings(lease_seconds=LEASE_SECONDS, max_attempts=1), worker, 60)
    heart = Heartbeat(claims, WorkerSettings(name=worker), lambda: {"state": "idle"}, forgotten.append, Counters())
    return claims, heart


def test_a_job_longer_than_its_lease_stays_with_a_worker_that_beats(queue: JobQueue) -> None:
    job = queue.submit(parameters())
    claims, heart = beat_for(queue, "one", [])
    batch = claims.claim(ClaimCriteria())
    heart.hold(batch, JobWatch(claims, batch))
    heart.start()
    time.sleep(4 * LEASE_SECONDS)
    other, _ = beat_for(queue, "two", [])
    assert other.reap() == (0, [])
    heart.stop()
    assert queue.fetch(job.id).state is JobState.RUNNING


def test_images_of_a_job_that_is_given_up_are_deleted(queue: JobQueue) -> None:
    job = queue.submit(parameters())
    silent, _ = beat_for(queue, "silent", [])
    silent.claim(ClaimCriteria())
    forgotten: list[str] = []
    _, heart = beat_for(queue, "other", forgotten)
    heart.start()
    time.sleep(4 * LEASE_SECONDS)
    heart.stop()
    assert forgotten == [job.id]
    assert queue.fetch(job.id).state is JobState.FAILED


def test_a_process_without_steps_exits(settings: SharedSettings, queue: JobQueue) -> None:
    queue.submit(parameters())
    program = (
        "import time\n"
        "from contracts.queue.leases import ClaimCriteria, Claims\n"
        "from contracts.redis.connection import connect\n"
        "from contracts.metrics import Counters\n"
        "from contracts.settings import QueueSettings\n"
        "from worker.loop.heartbeat import Heartbeat\n"
        "from worker.loop.progress import JobWatch\n"
        "from worker.settings import WorkerSettings\n"
        f"connection = connect({settings.redis_url!r}, timeout_seconds=5, retries=0)\n"
        "claims = Claims(connection, QueueSettings(lease_seconds=0.3), 'stuck', 60)\n"
        "settings = WorkerSettings(stall_seconds=0.5)\n"
        "heart = Heartbeat(claims, settings, lambda: {'state': 'idle'}, print, Counters())\n"
        "heart.start()\n"
        "batch = claims.claim(ClaimCriteria())\n"
        "heart.hold(batch, JobWatch(claims, batch))\n"
        "time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == STALLED, done.stderr
