"""The census and the totals of jobs: each job is in one state, and ends once, whatever becomes of it."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from contracts.errors import FailureCode
from contracts.metrics import read_totals
from contracts.queue.client import JobQueue
from contracts.queue.leases import Claim, ClaimCriteria, Claims
from contracts.queue.records import JobError, JobState, Receipt, Weights
from contracts.queue.stats import QueueDepth, read_stats
from contracts.requests.schema import Priority
from contracts.storage import Storage
from contracts.uploads.retention import Retention
from tests.support.claims import MakeClaims
from tests.support.parameters import parameters

SHORT = 0.05
KIND = ("shapes-sdxl", "txt2img")


def count_states(queue: JobQueue) -> dict[str, int]:
    """State -> jobs in it, by the census."""
    found = read_stats(queue.connection).jobs
    assert all(key[1:] == KIND for key in found)
    return {state: number for (state, *_), number in found.items() if number}


def count(queue: JobQueue, name: str) -> Counter[str]:
    """First label's value -> figure of a counter."""
    figures: Counter[str] = Counter()
    for row, samples in read_totals(queue.connection):
        for sample in samples:
            if row.name == name:
                figures[sample.labels[0]] += int(sample.parts[""])
    return figures


def receipt_of(claim: Claim) -> Receipt:
    given = claim.job.parameters
    return Receipt(parameters=given, seeds=given.seeds, model=Weights(id=given.model, sha256="0" * 64))


def take(queue: JobQueue, claims: Claims, **options: int) -> Claim:
    queue.submit(parameters(), **options)  # type: ignore[arg-type]
    (claim,) = claims.claim(ClaimCriteria())
    return claim


def complete(queue: JobQueue, claims: Claims) -> None:
    claim = take(queue, claims)
    assert claims.complete(claim, [], receipt_of(claim))
    assert claims.complete(claim, [], receipt_of(claim)), "its first answer was lost"


def fail(queue: JobQueue, claims: Claims) -> None:
    claim = take(queue, claims)
    claims.fail(claim, JobError(code=FailureCode.OUT_OF_MEMORY, message="too large", retryable=True))


def cancel_waiting(queue: JobQueue, claims: Claims) -> None:
    id = queue.submit(parameters()).id
    for _ in range(2):
        queue.cancel(id)


def cancel_running(queue: JobQueue, claims: Claims) -> None:
    claim = take(queue, claims)
    for _ in range(2):
        queue.cancel(claim.job.id)
    claims.finish(claim, JobState.CANCELLED)


def cancel_of_a_dead_worker(queue: JobQueue, claims: Claims) -> None:
    claim = take(queue, claims)
    queue.cancel(claim.job.id)
    time.sleep(2 * SHORT)
    claims.reap()
    assert not claims.finish(claim, JobState.CANCELLED)


def lose(queue: JobQueue, claims: Claims) -> None:
    claim = take(queue, claims)
    time.sleep(2 * SHORT)
    assert claims.reap() == (0, [claim.job.id])
    assert not claims.complete(claim, [], receipt_of(claim))


def expire_waiting(queue: JobQueue, claims: Claims) -> None:
    id = queue.submit(parameters(), deadline_seconds=1).id
    queue.connection.zadd("darkroom:deadlines", {id: 1})
    for _ in range(2):
        claims.reap()


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        (complete, "completed", None),
        (fail, "failed", "out_of_memory"),
        (cancel_waiting, "cancelled", None),
        (cancel_running, "cancelled", None),
        (cancel_of_a_dead_worker, "cancelled", None),
        (lose, "failed", "worker_lost"),
        (expire_waiting, "failed", "deadline_exceeded"),
    ],
)
def test_a_job_is_counted_once_however_it_ends(
    queue: JobQueue, make_claims: MakeClaims, end: object, status: str, code: str | None
) -> None:
    assert callable(end)
    end(queue, make_claims(lease_seconds=SHORT, max_attempts=1))

    assert count_states(queue) == {status: 1}
    assert count(queue, "jobs_accepted") == {"shapes-sdxl": 1}
    assert count(queue, "jobs_ended") == {status: 1}
    assert count(queue, "job_failures") == ({code: 1} if code else {})


def test_a_job_that_comes_back_is_in_one_state_and_has_not_ended(queue: JobQueue, make_claims: MakeClaims) -> None:
    quick = make_claims(lease_seconds=SHORT)
    claim = take(queue, quick)
    assert count_states(queue) == {"running": 1}
    quick.release(claim)
    assert count_states(queue) == {"queued": 1}
    quick.claim(ClaimCriteria())
    quick.release_lost([])
    assert count_states(queue) == {"queued": 1}
    quick.claim(ClaimCriteria())
    time.sleep(2 * SHORT)
    assert quick.reap() == (1, [])

    assert count_states(queue) == {"queued": 1}
    assert count(queue, "leases_lost") == {"shapes-sdxl": 1}
    assert count(queue, "jobs_ended") == {}


def test_a_forgotten_job_leaves_the_census_and_stays_in_the_totals(
    queue: JobQueue, storage: Storage, make_claims: MakeClaims
) -> None:
    complete(queue, make_claims())
    deleted = take(queue, make_claims())
    make_claims().finish(deleted, JobState.CANCELLED)
    queue.delete(deleted.job.id)
    assert count_states(queue) == {"completed": 1}
    for key in queue.connection.scan_iter("darkroom:job:*"):
        queue.connection.hset(key, "expires_at", "1")
        queue.connection.zadd("darkroom:expiry", {key.rpartition(":")[2]: 1})

    for _ in range(2):
        Retention(queue.connection, storage, gone_seconds=60).sweep()

    assert count_states(queue) == {}
    assert count(queue, "jobs_ended") == {"completed": 1, "cancelled": 1}


def test_the_lines_tell_of_each_model_and_priority_how_many_wait_and_how_long(queue: JobQueue) -> None:
    for owner in ("one", "two"):
        queue.submit(parameters(), owner=owner)
    queue.submit(parameters(model="shapes-flux"), priority=Priority.HIGH)
    time.sleep(SHORT)

    lines = read_stats(queue.connection).depths

    assert {key: line.waiting for key, line in lines.items() if line.waiting} == {
        ("shapes-sdxl", "normal"): 2,
        ("shapes-flux", "high"): 1,
    }
    assert lines["shapes-sdxl", "normal"].oldest_seconds >= SHORT
    assert lines["shapes-sdxl", "low"] == QueueDepth()
