"""The watch over jobs in flight: progress, verdicts, a Redis that is away, and the release of jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cli.supervisor.redis_server import RedisServer
from contracts.leases.claims import Claims
from contracts.queue.client import JobQueue
from contracts.settings import QueueSettings, SharedSettings
from tests.support.claims import take
from tests.support.parameters import parameters
from tests.support.waiting import wait_until
from worker.loop import progress
from worker.loop.progress import Aborted, JobWatch, ProgressReporter, Released

#: No report comes by itself.
NEVER_SECONDS = 600.0


def make_reporter(queue: JobQueue, report_seconds: float = 0.0) -> ProgressReporter:
    return ProgressReporter(Claims(queue.connection, QueueSettings(), "one", 60), report_seconds)


def watch_job(
    queue: JobQueue, reporter: ProgressReporter, must_release: Callable[[], bool] = lambda: False
) -> JobWatch:
    queue.submit(parameters())
    watch = JobWatch(reporter, take(reporter.claims), must_release)
    reporter.add(watch)
    return watch


def step_shown(queue: JobQueue, watch: JobWatch) -> int:
    return queue.fetch(watch.claim.job.id).progress.step


def test_steps_become_progress(queue: JobQueue) -> None:
    watch = watch_job(queue, make_reporter(queue))
    watch.step(1, 4)
    watch.step(2, 4)
    shown = queue.fetch(watch.claim.job.id).progress
    assert (shown.step, shown.steps, shown.fraction) == (2, 4, 0.5)


def test_of_quick_steps_only_the_first_and_the_last_are_reported(queue: JobQueue) -> None:
    with closing(make_reporter(queue, report_seconds=NEVER_SECONDS)) as reporter:
        watch = watch_job(queue, reporter)
        watch.step(1, 6)
        reporter.start()
        wait_until(lambda: step_shown(queue, watch) == 1)
        for step in range(2, 7):
            watch.step(step, 6)
            assert step_shown(queue, watch) == 1
        reporter.finish(watch)
        assert step_shown(queue, watch) == 6


def test_no_report_comes_after_the_last_one(queue: JobQueue) -> None:
    reporter = make_reporter(queue)
    ended, other = (watch_job(queue, reporter) for _ in range(2))
    ended.step(1, 4)
    reporter.finish(ended)
    ended.step(2, 4)
    other.step(1, 4)
    assert (step_shown(queue, ended), step_shown(queue, other)) == (1, 1)


def test_one_round_trip_reports_all_jobs(queue: JobQueue) -> None:
    reporter = make_reporter(queue, report_seconds=NEVER_SECONDS)
    watches = [watch_job(queue, reporter) for _ in range(3)]
    for number, watch in enumerate(watches, start=1):
        watch.step(number, 4)
    before = scripts_run(queue)
    with closing(reporter):
        reporter.start()
        wait_until(lambda: step_shown(queue, watches[2]) == 3)
    assert [step_shown(queue, watch) for watch in watches] == [1, 2, 3]
    assert scripts_run(queue) == before + 1


def scripts_run(queue: JobQueue) -> int:
    statistics = queue.connection.info("commandstats")
    return sum(statistics.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


def test_a_lost_job_and_a_release_take_effect_between_two_reports(queue: JobQueue) -> None:
    release = threading.Event()
    reporter = make_reporter(queue, report_seconds=NEVER_SECONDS)
    lost, healthy = (watch_job(queue, reporter, release.is_set) for _ in range(2))
    lost.drop()
    assert isinstance(lost.stop_reason(), Aborted)
    assert healthy.stop_reason() is None
    release.set()
    assert isinstance(lost.stop_reason(), Aborted)
    assert isinstance(healthy.stop_reason(), Released)


def test_what_stops_a_job_is_not_caught_where_a_pipeline_catches_errors() -> None:
    assert not issubclass(Aborted, Exception)
    assert not issubclass(Released, Exception)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server that a test may stop."""
    server = RedisServer(tmp_path / "redis", fsync="always")
    server.start()
    yield server
    server.stop()


def test_steps_do_not_wait_for_a_slow_redis_and_the_last_one_is_reported(own_redis: RedisServer) -> None:
    queue = JobQueue(SharedSettings(redis_url=own_redis.url))
    with closing(queue), closing(make_reporter(queue, report_seconds=0.001)) as reporter:
        watch = watch_job(queue, reporter)
        reporter.start()
        watch.step(1, 9)
        wait_until(lambda: step_shown(queue, watch) == 1)
        queue.connection.client_pause(600_000, all=False)  # what writes waits from here on
        for step in range(2, 10):
            watch.step(step, 9)
        # The steps were made although none of them could be reported.
        queue.connection.client_unpause()
        reporter.finish(watch)
        assert step_shown(queue, watch) == 9


def test_a_cancel_that_a_report_brings_stops_the_job_before_its_next_call_and_no_other(queue: JobQueue) -> None:
    reporter = make_reporter(queue)
    cancelled, other = (watch_job(queue, reporter) for _ in range(2))
    cancelled.step(1, 4)
    assert cancelled.stop_reason() is None
    queue.cancel(cancelled.claim.job.id)
    other.step(1, 4)  # any job's report asks about all
    assert isinstance(cancelled.stop_reason(), Aborted)
    assert (cancelled.verdict, other.verdict, other.stop_reason()) == ("cancel", None, None)


def test_a_job_without_steps_hears_of_its_cancel_too(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be loading its model, or pause for a job of a higher tier."""
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.05)
    with closing(make_reporter(queue, report_seconds=0.01)) as reporter:
        watch = watch_job(queue, reporter)
        reporter.start()
        queue.cancel(watch.claim.job.id)
        wait_until(lambda: watch.verdict == "cancel")


def test_steps_go_on_while_redis_is_away(own_redis: RedisServer) -> None:
    queue = JobQueue(SharedSettings(redis_url=own_redis.url))
    with closing(queue):
        watch = watch_job(queue, make_reporter(queue))
        own_redis.kill()
        watch.step(1, 4)
        watch.step(2, 4)
        assert (watch.verdict, watch.stop_reason()) == (None, None)
