"""The watch over running jobs: progress, verdicts, a Redis that is away, and the release of jobs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.supervisor.redis_server import RedisServer
from contracts.processes.background import BackgroundThread
from contracts.queue.client import JobQueue
from contracts.queue.leases import Claims
from contracts.settings import QueueSettings, SharedSettings
from tests.support.claims import take_all
from tests.support.parameters import parameters
from worker.loop.progress import Aborted, JobWatch, Released


def watch_jobs(
    queue: JobQueue,
    jobs: int,
    release: threading.Event | None = None,
    report_seconds: float = 0.0,
    thread: BackgroundThread | None = None,
) -> tuple[JobWatch, list[str]]:
    ids = [queue.submit(parameters()).id for _ in range(jobs)]
    claims = Claims(queue.connection, QueueSettings(), "one", 60)
    batch = take_all(claims)
    is_released = (release or threading.Event()).is_set
    return JobWatch(claims, batch, is_released, report_seconds=report_seconds, thread=thread), ids


def test_steps_become_progress_with_an_estimate(queue: JobQueue) -> None:
    watch, (job_id,) = watch_jobs(queue, 1)
    watch.step(1, 4)
    assert queue.fetch(job_id).progress.eta_seconds is None
    watch.step(2, 4)
    progress = queue.fetch(job_id).progress
    assert (progress.step, progress.steps, progress.fraction) == (2, 4, 0.5)
    assert progress.eta_seconds is not None


def test_of_quick_steps_only_the_first_and_the_last_are_reported(queue: JobQueue) -> None:
    watch, (job_id,) = watch_jobs(queue, 1, report_seconds=600)
    for step in range(1, 6):
        watch.step(step, 6)
        assert queue.fetch(job_id).progress.step == 1
    watch.step(6, 6)
    assert queue.fetch(job_id).progress.step == 6


def test_a_lost_job_and_a_release_take_effect_between_two_reports(queue: JobQueue) -> None:
    release = threading.Event()
    watch, (job_id,) = watch_jobs(queue, 1, release, report_seconds=600)
    watch.step(1, 6)
    watch.drop(job_id)
    with pytest.raises(Aborted):
        watch.step(2, 6)
    release.set()
    with pytest.raises(Released):
        watch.step(3, 6)


@pytest.fixture
def reports() -> Iterator[BackgroundThread]:
    """A thread that makes reports; it ends with the test."""
    thread = BackgroundThread("progress")
    yield thread
    thread.close()


def test_steps_do_not_wait_for_a_slow_redis_and_the_last_one_is_reported(
    tmp_path: Path, reports: BackgroundThread
) -> None:
    server = RedisServer(tmp_path)
    server.start()
    queue = JobQueue(SharedSettings(redis_url=server.url))
    try:
        watch, (job_id,) = watch_jobs(queue, 1, thread=reports)
        watch.step(1, 9)
        reports.submit(lambda: None).result()
        assert queue.fetch(job_id).progress.step == 1
        queue.connection.client_pause(600_000, all=False)  # what writes waits from here on
        for step in range(2, 9):
            watch.step(step, 9)
        # The steps were made while the report of the second still waits.
        assert not reports.submit(lambda: None).done()
        queue.connection.client_unpause()
        watch.step(9, 9)
        assert queue.fetch(job_id).progress.step == 9
    finally:
        queue.close()
        server.stop()


def test_a_cancel_that_a_report_brings_stops_the_call_at_a_later_step(
    queue: JobQueue, reports: BackgroundThread
) -> None:
    watch, (job_id,) = watch_jobs(queue, 1, thread=reports)
    watch.step(1, 4)
    reports.submit(lambda: None).result()
    queue.cancel(job_id)
    watch.step(2, 4)
    reports.submit(lambda: None).result()
    with pytest.raises(Aborted):
        watch.step(3, 4)
    assert watch.verdicts == {job_id: "cancel"}


def test_the_call_goes_on_until_its_last_job_is_cancelled(queue: JobQueue) -> None:
    watch, ids = watch_jobs(queue, 2)
    queue.cancel(ids[0])
    watch.step(1, 4)
    assert watch.verdicts == {ids[0]: "cancel"}
    queue.cancel(ids[1])
    with pytest.raises(Aborted):
        watch.step(2, 4)


def test_jobs_are_released_at_the_next_step(queue: JobQueue) -> None:
    release = threading.Event()
    watch, _ = watch_jobs(queue, 1, release)
    watch.step(1, 4)
    release.set()
    with pytest.raises(Released):
        watch.step(2, 4)


def test_steps_go_on_while_redis_is_away(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, fsync="always")
    server.start()
    queue = JobQueue(SharedSettings(redis_url=server.url))
    try:
        watch, _ = watch_jobs(queue, 1)
        server.kill()
        watch.step(1, 4)
        watch.step(2, 4)
        assert watch.verdicts == {}
    finally:
        queue.close()
        server.stop()
