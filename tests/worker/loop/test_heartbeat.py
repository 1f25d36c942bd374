"""The heartbeat: extends leases, reaps those of lost workers, and knows what is stuck."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from contracts.jobs.records import JobState
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria
from contracts.metrics import Counters
from contracts.processes.watchdog import STALLED
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.redis.connection import connect
from contracts.settings import QueueSettings, SharedSettings
from tests.support.claims import take
from tests.support.forked_text import running
from tests.support.parameters import parameters
from tests.support.waiting import wait_until
from worker.loop.heartbeat import Heartbeat
from worker.loop.progress import JobWatch, ProgressReporter
from worker.settings import WorkerSettings

LEASE_SECONDS = 0.3


def beat_for(queue: JobQueue, worker: str, forgotten: list[str]) -> tuple[Claims, Heartbeat]:
    claims = Claims(queue.connection, QueueSettings(lease_seconds=LEASE_SECONDS, max_attempts=1), worker, 60)
    heart = Heartbeat(claims, WorkerSettings(name=worker), lambda: {"state": "idle"}, forgotten.append, Counters())
    return claims, heart


@contextmanager
def beating(heart: Heartbeat) -> Iterator[None]:
    """The heartbeat beats while the block runs."""
    heart.start()
    try:
        yield
    finally:
        heart.stop()


def test_a_job_longer_than_its_lease_stays_with_a_worker_that_beats(queue: JobQueue) -> None:
    job = queue.submit(parameters())
    claims, heart = beat_for(queue, "one", [])
    heart.hold(JobWatch(ProgressReporter(claims, 0), take(claims)))
    first_end = end_of_lease(queue, job.id)
    with beating(heart):
        wait_until(lambda: end_of_lease(queue, job.id) > first_end + 2 * LEASE_SECONDS)
    assert queue.fetch(job.id).state is JobState.RUNNING


def end_of_lease(queue: JobQueue, job_id: str) -> float:
    return queue.connection.zscore(keys.LEASES, job_id) or 0.0


def test_images_of_a_job_that_is_given_up_are_deleted(queue: JobQueue) -> None:
    job = queue.submit(parameters())
    silent, _ = beat_for(queue, "silent", [])
    silent.claim(ClaimCriteria())
    forgotten: list[str] = []
    _, heart = beat_for(queue, "other", forgotten)
    with beating(heart):
        wait_until(lambda: forgotten)
    assert forgotten == [job.id]
    assert queue.fetch(job.id).state is JobState.FAILED


def test_a_process_whose_job_waits_in_vain_after_its_last_step_exits(
    settings: SharedSettings, queue: JobQueue
) -> None:
    queue.submit(parameters())
    program = (
        "import time\n"
        "from contracts.leases.claims import Claims\n"
        "from contracts.leases.criteria import ClaimCriteria\n"
        "from contracts.redis.connection import connect\n"
        "from contracts.metrics import Counters\n"
        "from contracts.settings import QueueSettings\n"
        "from contracts.processes.watchdog import Watchdog\n"
        "from worker.loop.heartbeat import Heartbeat\n"
        "from worker.loop.progress import JobWatch, ProgressReporter\n"
        "from worker.settings import WorkerSettings\n"
        f"connection = connect({settings.redis_url!r}, timeout_seconds=5, retries=0)\n"
        "claims = Claims(connection, QueueSettings(lease_seconds=0.3), 'stuck', 60)\n"
        "settings = WorkerSettings(stall_seconds=0.5)\n"
        "heart = Heartbeat(claims, settings, lambda: {'state': 'idle'}, print, Counters())\n"
        "heart.start()\n"
        "watch = JobWatch(ProgressReporter(claims, 0), claims.claim(ClaimCriteria()))\n"
        "heart.hold(watch)\n"
        "watch.mark_alive()\n"
        "Watchdog(1).watch(lambda: heart.find_fault(30))\n"
        "time.sleep(60)\n"
    )
    with running(program) as (process, _):
        _, said = process.communicate(timeout=60)
    assert process.returncode == STALLED, said
    assert "no step for" in said
    assert "in <module>" in said, "no traceback of where it hangs"


def test_a_thread_of_jobs_without_a_sign_of_life_is_a_fault(queue: JobQueue) -> None:
    idle_seconds = 0.0
    claims = Claims(queue.connection, QueueSettings(), "one", 60)
    settings = WorkerSettings(stall_seconds=10)
    heart = Heartbeat(claims, settings, lambda: {"state": "idle"}, print, Counters(), lambda: idle_seconds)
    assert heart.find_fault(hang_seconds=30) is None
    idle_seconds = 11.0
    assert heart.find_fault(hang_seconds=30) == "no step for 11 s"


def test_a_job_in_flight_may_pause_for_others_as_long_as_these_make_steps(queue: JobQueue) -> None:
    queue.submit(parameters())
    claims = Claims(queue.connection, QueueSettings(), "one", 60)
    settings = WorkerSettings(stall_seconds=0.01)
    heart = Heartbeat(claims, settings, lambda: {"state": "idle"}, print, Counters())
    watch = JobWatch(ProgressReporter(claims, 0), take(claims))
    heart.hold(watch)
    time.sleep(0.05)
    assert heart.find_fault(hang_seconds=30) is None
    watch.mark_alive()  # it has left the engine, and what it waits for is its own
    time.sleep(0.05)
    assert heart.find_fault(hang_seconds=30) is not None


def test_a_heartbeat_that_always_fails_is_a_fault_and_an_absent_redis_is_not(queue: JobQueue) -> None:
    claims = Claims(queue.connection, QueueSettings(lease_seconds=LEASE_SECONDS), "one", 60)
    away = Claims(connect("unix:///nowhere.sock", timeout_seconds=1, retries=0), QueueSettings(), "two", 60)

    def fail() -> dict[str, object]:
        raise ValueError("a bug")

    failing = Heartbeat(claims, WorkerSettings(), fail, print, Counters())
    alone = Heartbeat(away, WorkerSettings(), lambda: {"state": "idle"}, print, Counters())
    with beating(failing), beating(alone):
        wait_until(lambda: failing.find_fault(hang_seconds=2))
        alone.beat()
        assert alone.find_fault(hang_seconds=2) is None


def test_a_storage_that_hangs_does_not_delay_the_beats(queue: JobQueue) -> None:
    queue.submit(parameters())
    silent, _ = beat_for(queue, "silent", [])
    silent.claim(ClaimCriteria())
    asked, gate = threading.Event(), threading.Event()
    beats: list[str] = []

    def report() -> dict[str, str]:
        beats.append("a beat")
        return {"state": "idle"}

    def delete(job_id: str) -> None:
        asked.set()
        gate.wait(120)

    claims = Claims(queue.connection, QueueSettings(lease_seconds=LEASE_SECONDS, max_attempts=1), "one", 60)
    heart = Heartbeat(claims, WorkerSettings(), report, delete, Counters())
    with beating(heart):
        assert asked.wait(60)
        before = len(beats)
        wait_until(lambda: len(beats) > before + 2)
        gate.set()
