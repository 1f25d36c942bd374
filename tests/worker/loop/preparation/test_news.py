"""Waiting jobs hear how the preparation of their files goes on; a preparation without waiting jobs ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from contracts.hub.errors import Cancelled
from contracts.jobs.events import read_events
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.records import JobState
from contracts.leases.claims import Claims
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.requests.entry_parameters import LoraParameters
from contracts.settings import QueueSettings
from tests.support.parameters import parameters
from tests.support.waiting import wait_until
from worker.checkpoints.places import PreparationWatch
from worker.loop.preparation.news import PreparationNews
from worker.loop.preparation.prefetch import Prefetcher
from worker.pool.loading.fetcher import PreparationDelayed

GATED = JobFailed(FailureCode.MODEL_LOAD_FAILED, "sdxl cannot be loaded: org/name is gated")


class Download:
    """The download of everything, which a test ends."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.error: Exception | None = None
        self.was_cancelled = False

    def prepare(self, name: str, watch: PreparationWatch) -> None:
        """Report half of it, wait, and end as the test says."""
        watch.fetched(10, 100)
        watch.fetched(50, 100)
        while not self.over.wait(0.01):
            if not watch.is_wanted():
                self.was_cancelled = True
                raise Cancelled(name)
        if self.error is not None:
            raise self.error


@pytest.fixture
def download() -> Iterator[Download]:
    """One that has not ended; it ends with the test."""
    download = Download()
    yield download
    download.over.set()


@pytest.fixture
def prefetcher(download: Download) -> Prefetcher:
    """Downloads everything."""
    return Prefetcher(download.prepare, is_here=lambda _: False, first_pause_seconds=0.05)


@pytest.fixture
def make_news(queue: JobQueue, prefetcher: Prefetcher) -> Callable[..., PreparationNews]:
    """Makes the news of worker `first`; the test calls `look` itself."""

    def make(limit_seconds: float = 60.0) -> PreparationNews:
        claims = Claims(queue.connection, QueueSettings(), "first", ttl_seconds=3600)
        return PreparationNews(prefetcher, claims, "first", limit_seconds)

    return make


def states_told(queue: JobQueue, id: str) -> list[str]:
    events = read_events(queue.connection, id)
    return [str(event.data["state"]) for event in events if event.kind == "preparing"]


def end(prefetcher: Prefetcher, download: Download, name: str, error: Exception | None) -> None:
    download.error = error
    download.over.set()
    wait_until(lambda: name not in prefetcher.pending)


def test_jobs_hear_of_a_download_from_its_bytes_to_its_end(
    queue: JobQueue, prefetcher: Prefetcher, download: Download, make_news: Callable[..., PreparationNews]
) -> None:
    id, news = queue.submit(parameters(model="sdxl")).id, make_news()
    prefetcher.begin("sdxl")
    wait_until(lambda: prefetcher.preparations[0].bytes_done == 50)
    news.look()
    shown = queue.fetch(id).preparing
    assert shown is not None
    assert (shown.state, shown.bytes_done, shown.bytes_total) == ("fetching", 50, 100)
    news.look()  # nothing new
    end(prefetcher, download, "sdxl", None)
    news.look()
    assert (states_told(queue, id), queue.fetch(id).preparing) == (["fetching", "ready"], None)


def test_the_cancel_of_the_last_waiting_job_ends_the_download(
    queue: JobQueue, prefetcher: Prefetcher, download: Download, make_news: Callable[..., PreparationNews]
) -> None:
    ids, news = [queue.submit(parameters(loras=(LoraParameters(name="ink"),))).id for _ in range(2)], make_news()
    prefetcher.begin("lora:ink")
    for id in ids:
        assert not download.was_cancelled
        queue.cancel(id)
        news.look()
    wait_until(lambda: prefetcher.pending == [])
    assert download.was_cancelled
    assert prefetcher.ready == []


def test_jobs_that_need_what_cannot_be_had_fail_at_once_with_its_sentence(
    queue: JobQueue, prefetcher: Prefetcher, download: Download, make_news: Callable[..., PreparationNews]
) -> None:
    id, news = queue.submit(parameters(model="sdxl")).id, make_news()
    prefetcher.begin("sdxl")
    end(prefetcher, download, "sdxl", GATED)
    news.look()
    later = queue.submit(parameters(model="sdxl")).id
    news.look()
    for record in map(queue.fetch, (id, later)):
        assert record.error is not None
        assert (record.state, record.error.message) == (JobState.FAILED, GATED.message)
        assert (record.error.code, record.error.retryable) == (FailureCode.MODEL_LOAD_FAILED, False)


@pytest.mark.parametrize(("warm", "ready"), [(["sdxl"], []), ([], ["sdxl"])])
def test_jobs_that_another_worker_can_run_wait_for_it(
    queue: JobQueue,
    prefetcher: Prefetcher,
    download: Download,
    make_news: Callable[..., PreparationNews],
    warm: list[str],
    ready: list[str],
) -> None:
    publish(queue.connection, WorkerReport(id="second", state="busy", warm=warm, ready=ready), ttl_seconds=60)
    id = queue.submit(parameters(model="sdxl")).id
    prefetcher.begin("sdxl")
    end(prefetcher, download, "sdxl", GATED)
    make_news().look()
    assert queue.fetch(id).state is JobState.QUEUED


def test_a_job_stays_queued_while_the_hub_is_away_and_is_told_so(
    queue: JobQueue, prefetcher: Prefetcher, download: Download, make_news: Callable[..., PreparationNews]
) -> None:
    id, news = queue.submit(parameters(model="sdxl")).id, make_news()
    prefetcher.begin("sdxl")
    end(prefetcher, download, "sdxl", PreparationDelayed("the hub cannot be reached"))
    news.look()
    record = queue.fetch(id)
    assert record.preparing is not None
    assert (record.state, record.preparing.state) == (JobState.QUEUED, "retrying")
    assert record.preparing.message == "the hub cannot be reached"
    wait_until(lambda: not prefetcher.deferred)
    download.error = None
    prefetcher.begin("sdxl")
    wait_until(lambda: prefetcher.ready == ["sdxl"])
    news.look()
    assert states_told(queue, id) == ["retrying", "ready"]


def test_a_job_that_has_waited_for_a_hub_until_the_limit_fails_and_may_be_sent_again(
    queue: JobQueue, prefetcher: Prefetcher, download: Download, make_news: Callable[..., PreparationNews]
) -> None:
    id = queue.submit(parameters(model="sdxl")).id
    prefetcher.begin("sdxl")
    end(prefetcher, download, "sdxl", PreparationDelayed("the hub cannot be reached"))
    make_news(limit_seconds=0).look()
    error = queue.fetch(id).error
    assert error is not None
    assert (error.code, error.retryable) == (FailureCode.FILES_UNAVAILABLE, True)
    assert error.message == "sdxl could not be downloaded for 0 s: the hub cannot be reached"


@pytest.mark.parametrize(("log_seconds", "lines"), [(1000.0, 1), (0.0, 3)])
def test_the_log_tells_how_a_download_goes_on(
    queue: JobQueue,
    prefetcher: Prefetcher,
    caplog: pytest.LogCaptureFixture,
    log_seconds: float,
    lines: int,
) -> None:
    queue.submit(parameters(model="sdxl"))
    claims = Claims(queue.connection, QueueSettings(), "first", ttl_seconds=3600)
    news = PreparationNews(prefetcher, claims, "first", 60, log_seconds)
    prefetcher.begin("sdxl")
    wait_until(lambda: prefetcher.preparations[0].bytes_done == 50)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            news.look()
    told = [record.message for record in caplog.records if record.message.startswith("sdxl: 0.0 of 0.0 MB")]
    assert len(told) == lines
