"""A storage that is away while jobs are generated: they wait, and complete once it is back, or are released."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobRecord, JobState
from contracts.processes.workers import WorkerReport, read_workers
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage.local import LocalStorage
from tests.support.images import encode_solid
from tests.support.parameters import parameters
from tests.support.waiting import wait_until
from tests.support.workers import after_each_step, make_consumer, send_sigterm, work_until_ended
from worker.loop.consumer import Consumer
from worker.loop.progress import JobWatch
from worker.pool.pool import Pool


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "storage")


class SlowStorage(LocalStorage):
    """A folder whose writes take until `go_on` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.go_on = threading.Event()

    def write(self, key: str, data: bytes) -> None:
        assert self.go_on.wait(120)
        super().write(key, data)


def interrupt(storage: LocalStorage, folder: str) -> Callable[[], None]:
    """Make a folder of the storage unusable: a file is where it should be. Returns what repairs it."""
    there, aside = storage.root / folder, storage.root / f"{folder}-aside"
    there.mkdir(parents=True, exist_ok=True)
    there.rename(aside)
    there.write_text("not a folder")

    def repair() -> None:
        there.unlink()
        aside.rename(there)

    return repair


def paused(queue: JobQueue) -> list[WorkerReport]:
    return [report for report in read_workers(queue.connection) if report.state == "paused"]


def shrinks(watch: JobWatch, seen: list[float]) -> bool:
    """Whether the idle time is shorter than when it was asked last."""
    seen.append(watch.idle_seconds)
    return seen[-1] < seen[-2]


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Act beside the block; an assertion that fails there fails the test, and ends the worker."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
            if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
                send_sigterm()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if errors:
        raise errors[0]


def records_of(queue: JobQueue, ids: list[str]) -> list[JobRecord]:
    return [queue.fetch(id) for id in ids]


def test_an_outage_of_the_storage_stops_claims_and_each_job_completes_once_it_is_over(
    settings: SharedSettings, queue: JobQueue, pool: Pool, tmp_path: Path
) -> None:
    storage = SlowStorage(tmp_path / "storage")
    ids = [queue.submit(parameters(batchable=False, seed=number)).id for number in range(7)]
    repair = interrupt(storage, "images")
    consumer = make_consumer(settings, pool, storage, max_jobs=5)

    def learn_of_the_outage(*_: object) -> None:
        # The worker learns of it while it writes the first job's images, and has claimed a sixth job instead.
        if consumer._jobs._completions and not storage.go_on.is_set():
            storage.go_on.set()
            wait_until(lambda: bool(paused(queue)))

    def generated() -> list[JobWatch]:
        return [watch for watch in consumer._heartbeat._held if watch.idle_seconds]

    def observe() -> None:
        wait_until(lambda: len(generated()) == 5)
        (report,) = paused(queue)
        assert "storage" in report.reason
        # Four that are being written, and the one that waits for them, tell the watchdog so: an idle time that
        # only grew would end the process.
        for watch in generated():
            wait_until(partial(shrinks, watch, [0.0]))
        assert [record.state for record in records_of(queue, ids)] == ["running"] * 6 + ["queued"]
        repair()

    with meanwhile(observe), after_each_step(learn_of_the_outage):
        ended = work_until_ended(consumer, queue, *ids)
    assert [(record.state, record.attempts) for record in ended] == [(JobState.COMPLETED, 1)] * 7
    assert all(storage.exists(image.key) for record in ended for image in record.images)


def test_a_worker_that_is_stopped_in_a_long_outage_does_not_wait_for_the_end_of_its_drain_time(
    settings: SharedSettings,
    queue: JobQueue,
    pool: Pool,
    storage: LocalStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.loop.completion._STOPPING_PATIENCE_SECONDS", 0.1)
    id = queue.submit(parameters()).id
    interrupt(storage, "images")

    start_and_stop_in_the_outage(make_consumer(settings, pool, storage, drain_seconds=3600.0), queue)

    assert (queue.fetch(id).state, queue.fetch(id).attempts) == (JobState.QUEUED, 0)


def start_and_stop_in_the_outage(consumer: Consumer, queue: JobQueue) -> None:
    def stop() -> None:
        wait_until(lambda: bool(paused(queue)))
        send_sigterm()

    with meanwhile(stop):
        consumer.start([])


def test_a_worker_that_is_stopped_in_an_outage_hands_its_jobs_back_without_using_up_an_attempt(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: LocalStorage
) -> None:
    ids = [queue.submit(parameters(batchable=False, seed=number)).id for number in range(3)]
    repair = interrupt(storage, "images")

    start_and_stop_in_the_outage(make_consumer(settings, pool, storage, drain_seconds=0.2), queue)

    states = [(record.state, record.attempts) for record in records_of(queue, ids)]
    assert states == [(JobState.QUEUED, 0)] * 3
    assert queue.connection.zcard("darkroom:leases") == 0
    repair()
    ended = work_until_ended(make_consumer(settings, pool, storage), queue, *ids)
    assert [record.state for record in ended] == [JobState.COMPLETED] * 3


def test_images_are_given_up_after_their_time_and_their_jobs_wait_in_the_queue(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: LocalStorage
) -> None:
    id = queue.submit(parameters()).id
    repair = interrupt(storage, "images")

    def observe() -> None:
        wait_until(lambda: bool(paused(queue)) and queue.fetch(id).state is JobState.QUEUED)
        assert queue.fetch(id).attempts == 0
        repair()

    with meanwhile(observe):
        (ended,) = work_until_ended(make_consumer(settings, pool, storage, storage_retry_seconds=0.0), queue, id)
    assert (ended.state, ended.attempts) == (JobState.COMPLETED, 1)


def test_images_of_a_lost_lease_do_not_wait_for_the_end_of_the_outage(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: LocalStorage
) -> None:
    id = queue.submit(parameters()).id
    interrupt(storage, "images")
    consumer = make_consumer(settings, pool, storage)

    def lose() -> None:
        wait_until(lambda: bool(paused(queue)))
        queue.connection.hset(f"darkroom:job:{id}", "lease", "another execution")
        wait_until(lambda: not consumer._heartbeat.held_claims)
        send_sigterm()

    with meanwhile(lose):
        consumer.start([])
    assert queue.fetch(id).state is JobState.RUNNING  # by the other execution, which this one leaves alone


def test_a_job_whose_input_cannot_be_read_in_an_outage_goes_back_and_completes_later(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: LocalStorage
) -> None:
    storage.write("inputs/image.png", encode_solid("RGB", (64, 64), "red"))
    id = queue.submit(parameters(image="inputs/image.png", mode="img2img", task="img2img", strength=0.5)).id
    repair = interrupt(storage, "inputs")

    def observe() -> None:
        wait_until(lambda: bool(paused(queue)) and queue.fetch(id).state is JobState.QUEUED)
        repair()

    with meanwhile(observe):
        (ended,) = work_until_ended(make_consumer(settings, pool, storage), queue, id)
    assert (ended.state, ended.attempts) == (JobState.COMPLETED, 1)


def test_one_input_that_cannot_be_read_fails_its_own_job_and_no_other(
    settings: SharedSettings, queue: JobQueue, pool: Pool, storage: LocalStorage
) -> None:
    (storage.root / "inputs/image.png").mkdir(parents=True)
    broken = queue.submit(parameters(image="inputs/image.png", mode="img2img", task="img2img", strength=0.5)).id
    healthy = queue.submit(parameters()).id

    ended = work_until_ended(make_consumer(settings, pool, storage), queue, broken, healthy)

    assert [record.state for record in ended] == [JobState.FAILED, JobState.COMPLETED]
    assert ended[0].error is not None
    assert (ended[0].error.code, ended[0].error.retryable) == (FailureCode.INTERNAL, True)
