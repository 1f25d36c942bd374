"""How jobs end: while Redis is away, while the process is stopping, after too long, with an unusable image."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from cli.supervisor.redis_server import RedisServer
from contracts.errors import FailureCode
from contracts.metrics import Counters
from contracts.queue.client import JobQueue
from contracts.queue.leases import Claim, Claims
from contracts.queue.records import JobState, Receipt, Weights
from contracts.settings import QueueSettings, SharedSettings
from contracts.storage import Storage, open_storage
from tests.support.claims import take
from tests.support.parameters import parameters
from tests.support.scripted_worker import ScriptedWorker
from worker.generation.outputs import JobResult
from worker.loop import completion
from worker.loop.completion import JobCompleter
from worker.loop.progress import Aborted, JobWatch
from worker.loop.storage_outage import StorageOutage


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
    storage = open_storage(settings)
    outage = StorageOutage(storage, retry_seconds=60)
    completer = JobCompleter(claims, storage, Counters(), outage, stopping=stopping.is_set)

    def complete() -> threading.Thread:
        batch = [take(claims)]
        redis.kill()
        end = (batch, JobWatch(claims, batch), [JobResult("cancelled")])
        thread = threading.Thread(target=completer.complete, args=end)
        thread.start()
        thread.join(1.5)
        assert thread.is_alive(), "the result was given up although nobody asked to stop"
        return thread

    try:
        waiting = complete()
        redis.start()
        waiting.join(30)
        assert queue.fetch(ids[0]).state is JobState.CANCELLED

        waiting = complete()
        stopping.set()
        waiting.join(30)
        assert not waiting.is_alive(), "the write is retried forever"
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
    id, claims = queue.submit(parameters(), max_run_seconds=0.001).id, worker.claims
    batch = [take(claims)]
    watch = JobWatch(claims, batch)
    time.sleep(0.01)

    with closing(JobCompleter(claims, storage, Counters(), StorageOutage(storage, retry_seconds=60))) as completer:
        with pytest.raises(Aborted):
            watch.step(1, 4)
        completer.complete(batch, watch, [JobResult("lost")])

    job = queue.fetch(id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.retryable) == (FailureCode.DURATION_EXCEEDED, False)


def generated(claim: Claim, mode: str) -> JobResult:
    """A result with one image; Pillow has no PNG of mode F."""
    job = claim.job.parameters
    receipt = Receipt(parameters=job, seeds=job.seeds, model=Weights(id=job.model, sha256="0" * 64))
    return JobResult("generated", images=[Image.new(mode, (64, 64))], receipt=receipt)


def test_an_image_that_cannot_be_encoded_fails_its_own_job_and_neither_others_nor_the_worker(
    queue: JobQueue, storage: Storage, worker: ScriptedWorker
) -> None:
    ids = [queue.submit(parameters()).id for _ in range(2)]
    running = [take(worker.claims) for _ in ids]
    results = [generated(claim, mode) for claim, mode in zip(running, ("F", "RGB"), strict=True)]

    with closing(
        JobCompleter(worker.claims, storage, Counters(), StorageOutage(storage, retry_seconds=60))
    ) as end:
        end.complete(running, JobWatch(worker.claims, running), results)

    failed, completed = (queue.fetch(id) for id in ids)
    assert (failed.state, completed.state) == (JobState.FAILED, JobState.COMPLETED)
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == (
        FailureCode.INTERNAL,
        "the image could not be encoded as png (OSError); ask for another output_format",
    )
    assert storage.find(f"images/{failed.id}/") == []
