"""Job counts by state, and totals: each job is in one state and ends once, however it ends."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from contracts.jobs.failures import FailureCode
from contracts.jobs.receipt import Receipt, Weights
from contracts.jobs.records import JobError, JobState
from contracts.leases.claim import Claim
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria
from contracts.metrics import read_totals
from contracts.queue.client import JobQueue
from contracts.queue.stats import QueueDepth, read_stats
from contracts.redis import keys
from contracts.requests.schema import Priority
from contracts.storage import Storage
from contracts.uploads.retention import Retention
from tests.support.claims import MakeClaims, let_leases_expire, take
from tests.support.parameters import parameters
from tests.support.worker_reports import report_worker

KIND = ("shapes-sdxl", "txt2img")


def count_states(queue: JobQueue) -> dict[str, int]:
    """Return the number of jobs by state."""
    counts = read_stats(queue.connection).jobs
    assert all(key[1:] == KIND for key in counts)
    return {state: number for (state, *_), number in counts.items() if number}


def count(queue: JobQueue, name: str) -> Counter[str]:
    """Return the values of a counter by its first label."""
    values: Counter[str] = Counter()
    for row, samples in read_totals(queue.connection):
        for sample in samples:
            if row.name == name:
                values[sample.labels[0]] += int(sample.parts[""])
    return values


def receipt_of(claim: Claim) -> Receipt:
    parameters = claim.job.parameters
    return Receipt(
        parameters=parameters, seeds=parameters.seeds, model=Weights(id=parameters.model, sha256="0" * 64)
    )


def submit_and_take(queue: JobQueue, claims: Claims, **options: int) -> Claim:
    queue.submit(parameters(), **options)  # type: ignore[arg-type]
    return take(claims)


def complete(queue: JobQueue, claims: Claims) -> None:
    claim = submit_and_take(queue, claims)
    assert claims.complete(claim, [], receipt_of(claim))
    assert claims.complete(claim, [], receipt_of(claim)), "as if the first answer had been lost"


def fail(queue: JobQueue, claims: Claims) -> None:
    claim = submit_and_take(queue, claims)
    claims.fail(claim, JobError(code=FailureCode.OUT_OF_MEMORY, message="too large", retryable=True))


def cancel_waiting(queue: JobQueue, claims: Claims) -> None:
    id = queue.submit(parameters()).id
    for _ in range(2):
        queue.cancel(id)


def cancel_running(queue: JobQueue, claims: Claims) -> None:
    claim = submit_and_take(queue, claims)
    for _ in range(2):
        queue.cancel(claim.job.id)
    claims.finish(claim, JobState.CANCELLED)


def cancel_of_a_dead_worker(queue: JobQueue, claims: Claims) -> None:
    claim = submit_and_take(queue, claims)
    queue.cancel(claim.job.id)
    let_leases_expire(queue)
    claims.reap()
    assert not claims.finish(claim, JobState.CANCELLED)


def lose(queue: JobQueue, claims: Claims) -> None:
    claim = submit_and_take(queue, claims)
    let_leases_expire(queue)
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
    end(queue, make_claims(max_attempts=1))

    assert count_states(queue) == {status: 1}
    assert count(queue, "jobs_accepted") == {"shapes-sdxl": 1}
    assert count(queue, "jobs_ended") == {status: 1}
    assert count(queue, "job_failures") == ({code: 1} if code else {})


def test_a_requeued_job_is_counted_in_one_state_and_has_not_ended(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    claims = make_claims()
    claim = submit_and_take(queue, claims)
    assert count_states(queue) == {"running": 1}
    claims.release(claim)
    assert count_states(queue) == {"queued": 1}
    claims.claim(ClaimCriteria())
    claims.release_lost([])
    assert count_states(queue) == {"queued": 1}
    claims.claim(ClaimCriteria())
    let_leases_expire(queue)
    assert claims.reap() == (1, [])

    assert count_states(queue) == {"queued": 1}
    assert count(queue, "leases_lost") == {"shapes-sdxl": 1}
    assert count(queue, "jobs_ended") == {}


def test_a_removed_job_leaves_the_job_counts_and_stays_in_the_totals(
    queue: JobQueue, storage: Storage, make_claims: MakeClaims
) -> None:
    complete(queue, make_claims())
    deleted = submit_and_take(queue, make_claims())
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


def test_queue_depths_are_reported_by_model_and_priority(queue: JobQueue) -> None:
    for owner in ("one", "two"):
        queue.submit(parameters(), owner=owner)
    queue.submit(parameters(model="shapes-flux"), priority=Priority.HIGH)
    time.sleep(0.05)

    depths = read_stats(queue.connection).depths

    assert {key: depth.waiting for key, depth in depths.items() if depth.waiting} == {
        ("shapes-sdxl", "normal"): 2,
        ("shapes-flux", "high"): 1,
    }
    assert depths["shapes-sdxl", "normal"].oldest_seconds >= 0.05
    assert depths["shapes-sdxl", "low"] == QueueDepth()


def test_the_seconds_of_waiting_work_are_predicted_by_model(queue: JobQueue) -> None:
    measured = {"shapes-sdxl": (2.0, 1.0), "shapes-flux": (4.0, 1.0)}
    for model, seconds_and_megapixel_steps in measured.items():
        queue.connection.hset(keys.IMAGE_PACE, model, json.dumps(seconds_and_megapixel_steps))
    queue.connection.hset(keys.JOB_COSTS, "load shapes-flux", 30.0)
    report_worker(queue, "w", None, warm=["shapes-sdxl"])
    for number in range(300):
        queue.submit(parameters(num_inference_steps=10), owner=f"owner {number % 60}")
    queue.submit(parameters(model="shapes-flux"), priority=Priority.HIGH)
    done = queue.submit(parameters(model="shapes-sd3"))
    queue.cancel(done.id)

    seconds = read_stats(queue.connection).seconds

    image_step = 64 * 64 / 1e6
    assert seconds["shapes-sdxl"] == pytest.approx(300 * 10 * image_step * 2)
    assert seconds["shapes-flux"] == pytest.approx(4 * image_step * 4 + 30)
    assert seconds["shapes-sd3"] == 0
