"""An idle worker is woken by a job, a signal or the time, and finds a job by polling when it hears nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from rq.suspension import resume, suspend

from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.queue.listener import WorkListener
from contracts.redis import keys
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.parameters import parameters
from tests.support.waiting import wait_until
from tests.support.workers import at_step, make_consumer, send_sigterm, work_until_ended
from worker.checkpoints.places import PreparationWatch
from worker.loop.consumer import Consumer
from worker.pool.pool import Pool

#: No test waits for this to pass: a worker that is not woken keeps its test until that is given up.
NEVER_SECONDS = 3600.0


def run_idle(consumer: Consumer, act: Callable[[], object]) -> None:
    """Run a consumer; act as soon as it waits, then SIGTERM."""

    def wait_and_act() -> None:
        wait_until(lambda: consumer._registration._state == "idle")
        time.sleep(0.1)
        try:
            act()
        finally:
            send_sigterm()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    consumer.start([])
    thread.join()


def submit_and_wait(queue: JobQueue, **fields: object) -> JobRecord:
    """Submit a job to an idle worker; its record once it has ended."""
    job = queue.submit(parameters(**fields))
    wait_until(lambda: queue.fetch(job.id).state.is_final)
    return queue.fetch(job.id)


def test_a_job_does_not_wait_for_the_poll(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    ended: list[JobRecord] = []
    consumer = make_consumer(settings, pool, storage, poll_seconds=NEVER_SECONDS)
    run_idle(consumer, lambda: ended.append(submit_and_wait(queue)))
    assert ended[0].state is JobState.COMPLETED


def test_a_short_job_that_comes_while_a_long_one_runs_does_not_wait_for_its_end(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    consumer = make_consumer(settings, pool, storage, poll_seconds=NEVER_SECONDS)
    long = queue.submit(parameters(num_inference_steps=8)).id
    short: list[str] = []

    def submit() -> None:
        short.append(queue.submit(parameters(num_inference_steps=1)).id)
        wait_until(lambda: not consumer._listener._wakes.empty())

    with at_step(2, long, submit):
        (ended,) = work_until_ended(consumer, queue, long)
    first = queue.fetch(short[0])
    assert first.finished_at is not None
    assert ended.finished_at is not None
    assert first.finished_at < ended.finished_at


def test_a_worker_that_hears_nothing_finds_the_job_by_polling(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit_unheard() -> None:
        # From here on no subscription is made again.
        monkeypatch.setattr(WorkListener, "_listen", lambda self: None)
        queue.connection.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
        wait_until(lambda: queue.connection.pubsub_numsub(keys.WAKE_JOBS)[0][1] == 0)
        ended.append(submit_and_wait(queue))

    ended: list[JobRecord] = []
    run_idle(make_consumer(settings, pool, storage, poll_seconds=0.2), submit_unheard)
    assert ended[0].state is JobState.COMPLETED


def test_an_idle_worker_leaves_at_the_signal_and_not_at_the_next_poll(
    settings: SharedSettings, pool: Pool, storage: Storage
) -> None:
    consumer = make_consumer(settings, pool, storage, poll_seconds=NEVER_SECONDS)
    run_idle(consumer, lambda: None)
    assert consumer._shutdown.requested


def test_a_job_whose_model_was_prepared_meanwhile_does_not_wait_for_the_poll(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, gate = threading.Event(), threading.Event()

    def prepare(name: str, watch: PreparationWatch) -> None:
        del watch
        asked.set()
        assert gate.wait(60), name

    def submit_and_open() -> None:
        job = queue.submit(parameters())
        assert asked.wait(60)
        time.sleep(0.2)
        assert queue.fetch(job.id).state is JobState.QUEUED
        gate.set()
        wait_until(lambda: queue.fetch(job.id).state is JobState.COMPLETED)

    pool.drop("shapes-sdxl")
    consumer = make_consumer(settings, pool, storage, poll_seconds=NEVER_SECONDS)
    monkeypatch.setattr(consumer._prefetcher, "_prepare", prepare)
    run_idle(consumer, submit_and_open)


def test_a_worker_takes_no_job_between_rq_suspend_and_rq_resume(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: Storage
) -> None:
    consumer = make_consumer(settings, pool, storage, poll_seconds=0.05)
    shown = set()

    def act() -> None:
        suspend(queue.connection)
        job = queue.submit(parameters())
        wait_until(lambda: consumer._registration._state == "suspended")
        for _ in range(20):
            time.sleep(0.01)
            shown.add((consumer._registration._state, queue.fetch(job.id).state))
        resume(queue.connection)
        wait_until(lambda: queue.fetch(job.id).state.is_final)

    run_idle(consumer, act)
    assert shown == {("suspended", JobState.QUEUED)}
