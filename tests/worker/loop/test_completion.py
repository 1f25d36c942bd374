"""How jobs end: while Redis is away, while the process is stopping, after too long, with an unusable image."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from cli.supervisor.redis_server import RedisServer
from contracts.jobs.failures import FailureCode
from contracts.jobs.receipt import Energy, Receipt, Weights
from contracts.jobs.records import JobState
from contracts.leases.claim import Claim
from contracts.leases.claims import Claims
from contracts.metrics import Counters
from contracts.queue.client import JobQueue
from contracts.settings import QueueSettings, SharedSettings
from contracts.storage import Storage, open_storage
from contracts.storage.local import LocalStorage
from tests.support.claims import take
from tests.support.parameters import parameters
from tests.support.scripted_worker import ScriptedWorker
from worker.generation.results.outputs import JobResult
from worker.loop import completion
from worker.loop.completion import JobCompleter
from worker.loop.progress import Aborted, JobWatch, ProgressReporter
from worker.loop.storage_outage import StorageOutage


def make_completer(
    claims: Claims,
    storage: Storage,
    stopping: Callable[[], bool] = lambda: False,
    counters: Counters | None = None,
) -> JobCompleter:
    outage = StorageOutage(storage, retry_seconds=60)
    reporter = ProgressReporter(claims, report_seconds=0)
    return JobCompleter(claims, storage, counters or Counters(), outage, reporter, stopping=stopping)


def watch_job(claims: Claims, claim: Claim) -> JobWatch:
    reporter = ProgressReporter(claims, report_seconds=0)
    watch = JobWatch(reporter, claim)
    reporter.add(watch)
    return watch


def test_a_result_waits_for_redis_until_the_process_is_asked_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "_STOPPING_PATIENCE_SECONDS", 0.5)
    redis, stopping = RedisServer(tmp_path / "redis", fsync="always"), threading.Event()
    redis.start()
    settings = SharedSettings(redis_url=redis.url, data=tmp_path)
    queue = JobQueue(settings)
    ids = [queue.submit(parameters()).id for _ in range(2)]
    claims = Claims(queue.connection, QueueSettings(), "one", ttl_seconds=60)
    completer = make_completer(claims, open_storage(settings), stopping.is_set)

    def complete() -> Future[None]:
        claim = take(claims)
        redis.kill()
        ended = completer.complete(claim, watch_job(claims, claim), JobResult("cancelled"))
        with pytest.raises(TimeoutError):  # else the result was given up although nobody asked to stop
            ended.result(1.5)
        return ended

    try:
        waiting = complete()
        redis.start()
        waiting.result(60)
        assert queue.fetch(ids[0]).state is JobState.CANCELLED

        waiting = complete()
        stopping.set()
        waiting.result(60)  # else the write is retried forever
        redis.start()
        assert queue.fetch(ids[1]).state is JobState.RUNNING
        redis.kill()
    finally:
        redis.start()  # or a write that is retried forever would keep this test from ending
        stopping.set()
        completer.close()
        queue.close()
        redis.stop()


def test_a_job_that_ran_for_too_long_fails_and_is_not_to_be_sent_again(
    queue: JobQueue, storage: Storage, worker: ScriptedWorker
) -> None:
    id, claims = queue.submit(parameters(), max_run_seconds=30.0).id, worker.claims
    claim = take(claims)
    watch = watch_job(claims, claim)
    watch.used_seconds = 29.0
    watch.step(1, 4)
    assert watch.stop_reason() is None

    watch.used_seconds = 31.0
    watch.step(2, 4)
    assert isinstance(watch.stop_reason(), Aborted)
    with closing(make_completer(claims, storage)) as completer:
        completer.complete(claim, watch, JobResult("lost")).result()

    job = queue.fetch(id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.retryable) == (FailureCode.DURATION_EXCEEDED, False)


def generated(claim: Claim, mode: str = "RGB") -> JobResult:
    """A result with one image; Pillow has no PNG of mode F."""
    job = claim.job.parameters
    receipt = Receipt(parameters=job, seeds=job.seeds, model=Weights(id=job.model, sha256="0" * 64))
    return JobResult("generated", images=[Image.new(mode, (64, 64))], receipt=receipt)


def test_an_image_that_cannot_be_encoded_fails_its_own_job_and_neither_others_nor_the_worker(
    queue: JobQueue, storage: Storage, worker: ScriptedWorker
) -> None:
    ids = [queue.submit(parameters()).id for _ in range(2)]
    running = [take(worker.claims) for _ in ids]

    counters = Counters()
    with closing(make_completer(worker.claims, storage, counters=counters)) as completer:
        for claim, mode in zip(running, ("F", "RGB"), strict=True):
            watch = watch_job(worker.claims, claim)
            watch.used_seconds, watch.energy = 1.5, Energy(joules=450.0, source="estimated", assumed_watts=300.0)
            completer.complete(claim, watch, generated(claim, mode)).result()

    failed, completed = (queue.fetch(id) for id in ids)
    assert (failed.state, completed.state) == (JobState.FAILED, JobState.COMPLETED)
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == (
        FailureCode.INTERNAL,
        "the image could not be encoded as png (OSError); ask for another output_format",
    )
    assert storage.find(f"images/{failed.id}/") == []
    # Only what was completed was made; both took their time.
    made, job = counters.drain(), completed.parameters
    used = {
        name: made[f'["{name}","","{job.model}"]']
        for name in ("images", "pixels", "image_steps", "device_seconds")
    }
    expected = (job.num_images, job.pixels, job.num_inference_steps * job.num_images, 3.0)
    assert tuple(used.values()) == expected
    assert made[f'["energy_joules","","{job.model}","estimated"]'] == 900.0
    assert completed.receipt is not None
    assert completed.receipt.energy == watch.energy


def test_images_of_a_job_that_was_cancelled_after_its_last_step_are_not_stored(
    queue: JobQueue, storage: Storage, worker: ScriptedWorker
) -> None:
    id = queue.submit(parameters()).id
    claim = take(worker.claims)
    watch = watch_job(worker.claims, claim)
    watch.step(4, 4)
    queue.cancel(id)

    with closing(make_completer(worker.claims, storage)) as completer:
        completer.complete(claim, watch, generated(claim)).result()

    assert queue.fetch(id).state is JobState.CANCELLED
    assert storage.find("images/") == []


class MeetingStorage(LocalStorage):
    """Writes nothing before three writers have come."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._all_here = threading.Barrier(3)

    def write(self, key: str, data: bytes) -> None:
        self._all_here.wait(timeout=60)
        super().write(key, data)


def test_images_of_jobs_that_end_together_are_written_at_the_same_time(
    queue: JobQueue, worker: ScriptedWorker, tmp_path: Path
) -> None:
    ids = [queue.submit(parameters()).id for _ in range(3)]
    running = [take(worker.claims) for _ in ids]
    storage = MeetingStorage(tmp_path)

    with closing(make_completer(worker.claims, storage)) as completer:
        for claim in running:
            completer.complete(claim, watch_job(worker.claims, claim), generated(claim))

    assert [queue.fetch(id).state for id in ids] == [JobState.COMPLETED] * 3
    assert all(storage.exists(queue.fetch(id).images[0].key) for id in ids)
