"""A Redis that has reached `maxmemory`: nothing new is accepted, and all that is there ends and is removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq import Worker
from rq.worker import WorkerStatus

from cli.supervisor.redis_server import RedisServer
from contracts.auth.api_keys import ApiKeyStore
from contracts.errors import Unavailable
from contracts.jobs.events import Preview
from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobState, Progress, WebhookRecord
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria
from contracts.metrics import Counters, TotalsWriter
from contracts.outbound.outbox import Outbox, Outcome
from contracts.processes.rq_registration import RqRegistration
from contracts.processes.workers import WorkerReport, publish, read_workers
from contracts.queue.client import JobQueue
from contracts.queue.idempotency import CallIdentity, Idempotency
from contracts.redis.connection import Scripts, connect, is_memory_full
from contracts.requests.schema import WebhookEvent
from contracts.settings import QueueSettings, SharedSettings
from contracts.storage import open_storage
from contracts.uploads.retention import Retention
from tests.support.claims import reports, take, take_all
from tests.support.parameters import parameters

WEBHOOK = WebhookRecord(url="https://a/", events=(WebhookEvent.COMPLETED,), site="a:443", base="http://b")


@pytest.fixture
def queue(small_redis: RedisServer, tmp_path: Path) -> Iterator[JobQueue]:
    queue = JobQueue(SharedSettings(redis_url=small_redis.url, data=tmp_path, result_ttl_seconds=60))
    yield queue
    queue.close()


def claims_of(queue: JobQueue, ttl_seconds: int = 3600, **settings: float) -> Claims:
    return Claims(queue.connection, QueueSettings(**settings), "worker", ttl_seconds)  # type: ignore[arg-type]


def repeat_until_refused(write: Callable[[], object]) -> RedisError:
    """Repeat a write until Redis refuses it; returns its error."""
    while True:
        try:
            write()
        except RedisError as error:
            return error


def fill(connection: Redis) -> None:
    """Write until Redis refuses, in ever smaller pieces."""
    for size in (100_000, 1000, 10):
        assert is_memory_full(repeat_until_refused(partial(connection.rpush, f"filler:{size}", "x" * size)))


def test_nothing_new_is_accepted_and_the_message_says_why(queue: JobQueue) -> None:
    fill(queue.connection)

    with pytest.raises(Unavailable, match=r"the queue's memory \(Redis\) is full"):
        queue.submit(parameters())

    assert not list(queue.connection.scan_iter("darkroom:job:*"))


def test_waiting_jobs_are_claimed_run_and_completed(queue: JobQueue) -> None:
    jobs = [queue.submit(parameters(), webhook=WEBHOOK) for _ in range(3)]
    fill(queue.connection)
    claims = claims_of(queue)

    running = take_all(claims)

    assert claims.extend(running) == set()
    assert claims.advance(reports(*running, progress=Progress(step=1, steps=2))) == ["on"] * 3
    assert claims.finish(running[0], JobState.COMPLETED, images=[]) is JobState.COMPLETED
    assert claims.release(running[1])
    assert [queue.fetch(job.id).state for job in jobs] == ["completed", "queued", "running"]
    assert claims.release_lost([]) == 1
    outbox = Outbox(queue.connection, "dispatcher", 60)
    message = outbox.claim(())
    assert message is not None
    assert outbox.finish(message, Outcome("delivered"))


def test_jobs_are_cancelled_fail_at_their_deadline_and_leave_silent_workers(queue: JobQueue) -> None:
    silent = queue.submit(parameters())
    claims = claims_of(queue, lease_seconds=0.1)
    claims.claim(ClaimCriteria())
    cancelled, late = queue.submit(parameters()), queue.submit(parameters(), deadline_seconds=1)
    fill(queue.connection)

    queue.cancel(cancelled.id)
    time.sleep(1.0)
    claims.reap()

    assert queue.fetch(cancelled.id).state is JobState.CANCELLED
    assert queue.fetch(silent.id).state is JobState.QUEUED
    error = queue.fetch(late.id).error
    assert error is not None
    assert error.code is FailureCode.DEADLINE_EXCEEDED


def test_ended_jobs_and_unused_inputs_are_swept_until_new_jobs_are_accepted(
    queue: JobQueue, tmp_path: Path
) -> None:
    long = "ß" * 10_000
    claims = claims_of(queue, ttl_seconds=0)
    retention = Retention(
        queue.connection, open_storage(SharedSettings(data=tmp_path / "files")), gone_seconds=3600
    )
    retention.retain("1" * 64, 0)
    accepted = 0
    with suppress(Unavailable):
        for accepted in range(1000):  # noqa: B007
            queue.submit(parameters(prompt=long))
    assert 0 < accepted < 999

    while running := claims.claim(ClaimCriteria()):
        claims.finish(running, JobState.COMPLETED, images=[])
    while retention.sweep():
        pass

    assert queue.eta.position(queue.submit(parameters(prompt=long))) is not None
    assert queue.connection.zcard("darkroom:inputs") == 0


def test_deleting_an_ended_job_frees_its_memory(queue: JobQueue) -> None:
    job = queue.submit(parameters())
    queue.cancel(job.id)
    fill(queue.connection)

    queue.delete(job.id)

    assert queue.connection.hgetall(f"darkroom:job:{job.id}").keys() == {"owner", "gone"}


def test_workers_stay_visible_keys_are_accepted_and_counters_are_added(queue: JobQueue) -> None:
    keys = ApiKeyStore(queue.connection)
    key, token = keys.create("team")
    counters = Counters()
    counters.count("warm_hits", model="m")
    fill(queue.connection)

    publish(queue.connection, WorkerReport(id="w", state="idle"), 60)
    TotalsWriter(queue.connection, counters).flush()

    assert [worker.id for worker in read_workers(queue.connection)] == ["w"]
    assert keys.authenticate(token) is not None
    assert keys.count_call(key.id, 10).remaining == 9
    assert keys.revoke(key.id).revoked_at is not None
    assert keys.authenticate(token) is None


def test_a_process_can_start_be_seen_and_stop(small_redis: RedisServer, queue: JobQueue) -> None:
    fill(queue.connection)
    connection = connect(small_redis.url, timeout_seconds=5, retries=1, decode=False)

    with closing(connection), RqRegistration(connection, "a-worker") as registration:
        registration.show(WorkerStatus.BUSY)
        (entry,) = Worker.all(connection=connection)
        assert (entry.name, entry.get_state()) == ("a-worker", WorkerStatus.BUSY)
        assert connection.ttl("rq:worker:a-worker") > 0
    with closing(connection), RqRegistration(connection, "a-worker"):
        pass  # the name is free again

    assert queue.connection.smembers("rq:workers") == set()


def test_a_call_that_frees_something_has_its_idempotency_key(queue: JobQueue) -> None:
    job = queue.submit(parameters())
    call = CallIdentity("local", "k", f"POST /v1/jobs/{job.id}/cancel", b"")
    keys = Idempotency(queue.connection, lease_seconds=60)
    fill(queue.connection)

    answers = [
        keys.run(call, lambda _: queue.cancel(job.id), queue.fetch, lambda job: job.id, even_if_full=True)
        for _ in range(2)
    ]

    assert [(record.state, replayed) for record, replayed in answers] == [
        ("cancelled", False),
        ("cancelled", True),
    ]


def test_previews_are_refused_and_progress_is_not(queue: JobQueue) -> None:
    queue.submit(parameters())
    claims = claims_of(queue)
    claim = take(claims)
    fill(queue.connection)
    preview = Preview(index=0, step=1, steps=2, width=8, height=8, url="data:,")

    with pytest.raises(RedisError) as caught:
        claims.preview(claim, preview)

    assert is_memory_full(caught.value)
    assert claims.advance(reports(claim, progress=Progress(step=1, steps=2))) == ["on"]


def test_a_script_that_brings_something_new_leaves_nothing_behind(queue: JobQueue) -> None:
    fill(queue.connection)
    before = set(queue.connection.scan_iter("darkroom:*"))

    for name, arguments in (
        ("retain_input", {"sha256": "1" * 64, "key": "inputs/x.png", "seconds": 60}),
        (
            "idempotency_begin",
            {"key": "darkroom:once:me:x", "fingerprint": "f", "token": "t", "lease_milliseconds": 9},
        ),
    ):
        with pytest.raises(RedisError) as caught:
            Scripts(queue.connection).run(name, **arguments)
        assert is_memory_full(caught.value)

    assert set(queue.connection.scan_iter("darkroom:*")) == before
