"""Cancels and deadlines act in every phase of a job, and without a live worker."""

from __future__ import annotations

import time

import pytest

from contracts.jobs.events import Preview, read_events
from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobError, JobState, WebhookRecord
from contracts.leases.claim import Claim
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria
from contracts.leases.reaper import Reaper
from contracts.outbound.outbox import Outbox
from contracts.queue.client import JobQueue
from contracts.requests.schema import WebhookEvent
from tests.support.claims import MakeClaims, let_leases_expire, reports, take
from tests.support.parameters import parameters
from tests.support.waiting import wait_until

WEBHOOK = WebhookRecord(url="https://a/", events=tuple(WebhookEvent), site="a:443", base="http://b")
INTERNAL = JobError.of(FailureCode.INTERNAL, "x")


def run(queue: JobQueue, claims: Claims) -> Claim:
    queue.submit(parameters(), deadline_seconds=3600)
    return take(claims)


def let_deadline_pass(queue: JobQueue, claim: Claim) -> None:
    queue.connection.hset(f"darkroom:job:{claim.job.id}", "deadline_at", "1")
    queue.connection.zadd("darkroom:deadlines", {claim.job.id: 1})


def code_of(queue: JobQueue, claim: Claim) -> FailureCode | None:
    error = queue.fetch(claim.job.id).error
    return None if error is None else error.code


def test_a_cancel_while_the_images_are_written_wins(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims()
    for state in (JobState.COMPLETED, JobState.FAILED):
        claim = run(queue, claims)
        queue.cancel(claim.job.id)

        assert claims.finish(claim, state, images=["never seen"]) is JobState.CANCELLED
        assert claims.finish(claim, state, images=["never seen"]) is JobState.CANCELLED
        assert queue.fetch(claim.job.id).images == []


def test_a_deadline_that_passes_while_the_images_are_written_counts(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    claims = make_claims()
    claim, other = run(queue, claims), run(queue, claims)
    for running in (claim, other):
        let_deadline_pass(queue, running)

    assert claims.finish(claim, JobState.COMPLETED, images=[]) is JobState.FAILED
    assert claims.fail(other, INTERNAL) is JobState.FAILED
    assert code_of(queue, claim) is FailureCode.DEADLINE_EXCEEDED
    assert code_of(queue, other) is FailureCode.INTERNAL


@pytest.mark.parametrize("device_failed", [False, True])
def test_a_job_that_is_handed_back_does_not_outlive_a_cancel_or_its_deadline(
    queue: JobQueue, make_claims: MakeClaims, *, device_failed: bool
) -> None:
    claims = make_claims()
    cancelled, late = run(queue, claims), run(queue, claims)
    queue.cancel(cancelled.job.id)
    let_deadline_pass(queue, late)

    for claim in (cancelled, late):
        assert claims.release(claim, device_failed=device_failed)

    assert queue.fetch(cancelled.job.id).state is JobState.CANCELLED
    assert code_of(queue, late) is FailureCode.DEADLINE_EXCEEDED
    assert claims.claim(ClaimCriteria()) is None


def test_jobs_of_a_lost_claim_do_not_outlive_a_cancel_or_their_deadline(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    claims = make_claims()
    cancelled, late = run(queue, claims), run(queue, claims)
    queue.cancel(cancelled.job.id)
    let_deadline_pass(queue, late)

    assert claims.release_lost([]) == 2

    assert queue.fetch(cancelled.job.id).state is JobState.CANCELLED
    assert code_of(queue, late) is FailureCode.DEADLINE_EXCEEDED


def test_a_job_of_a_silent_worker_ends_if_it_was_cancelled_or_is_late(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    claims = make_claims()
    cancelled, late = run(queue, claims), run(queue, claims)
    queue.cancel(cancelled.job.id)
    let_deadline_pass(queue, late)
    claims.reap(leases=False)  # sees the deadline of a running job, which must count later
    let_leases_expire(queue)

    requeued, ended = claims.reap()

    assert (requeued, set(ended)) == (0, {cancelled.job.id, late.job.id})
    assert queue.fetch(cancelled.job.id).state is JobState.CANCELLED
    assert code_of(queue, late) is FailureCode.DEADLINE_EXCEEDED


def test_a_requeued_job_keeps_its_deadline(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims()
    claim = run(queue, claims)
    queue.connection.zrem("darkroom:deadlines", claim.job.id)

    claims.release(claim)

    assert queue.connection.zscore("darkroom:deadlines", claim.job.id) is not None


def test_a_reaper_spares_leases_at_first_but_not_deadlines(queue: JobQueue, make_claims: MakeClaims) -> None:
    run(queue, make_claims())
    let_leases_expire(queue)
    late = queue.submit(parameters(), deadline_seconds=3600)
    queue.connection.zadd("darkroom:deadlines", {late.id: 1})
    deleted: list[str] = []

    Reaper(make_claims(lease_seconds=60), deleted.append).reap()

    assert queue.fetch(late.id).state is JobState.FAILED
    assert queue.connection.zcard("darkroom:leases") == 1
    assert deleted == []


def test_a_reaper_spares_leases_when_a_redis_that_hung_goes_on(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims(lease_seconds=0.4)
    claim = run(queue, claims)
    reaper = Reaper(claims, print)
    time.sleep(0.5)  # what a reaper spares when it starts is over, and so is the lease
    queue.connection.client_pause(2000)

    reaper.reap()

    assert queue.fetch(claim.job.id).state is JobState.RUNNING

    def is_requeued() -> bool:
        reaper.reap()
        return queue.fetch(claim.job.id).state is JobState.QUEUED

    wait_until(is_requeued)


def test_a_look_between_stages_reports_interruptions_and_writes_nothing(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    claims = make_claims()
    claim, cancelled, late = (run(queue, claims) for _ in range(3))
    queue.cancel(cancelled.job.id)
    let_deadline_pass(queue, late)

    assert claims.advance(reports(claim, cancelled, late)) == ["on", "cancel", "deadline"]
    assert [event.kind for event in read_events(queue.connection, claim.job.id)] == ["queued", "started"]


def test_messages_of_a_job_are_numbered_in_the_order_of_its_events(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    queue.submit(parameters(), webhook=WEBHOOK)
    claim = take(make_claims())
    make_claims().finish(claim, JobState.COMPLETED, images=[])
    outbox = Outbox(queue.connection, "dispatcher", 60)

    messages = [outbox.claim(()) for _ in range(3)]

    numbered = [(message.event, message.sequence) for message in messages if message is not None]
    assert numbered == [("queued", 1), ("started", 2), ("completed", 3)]
    assert [d.sequence for _, d in sorted(queue.fetch(claim.job.id).deliveries.items())] == [1, 2, 3]


def test_reaping_removes_rqs_members_whose_workers_are_gone(queue: JobQueue, make_claims: MakeClaims) -> None:
    connection = queue.connection
    connection.hset("rq:worker:alive", "birth", "now")
    connection.sadd("rq:queues", "rq:queue:darkroom")
    for members in ("rq:workers", "rq:workers:darkroom"):
        connection.sadd(members, "rq:worker:alive", "rq:worker:dead")

    make_claims().reap()

    for members in ("rq:workers", "rq:workers:darkroom"):
        assert connection.smembers(members) == {"rq:worker:alive"}


def test_a_stream_keeps_the_newest_previews_up_to_a_limit(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims()
    claim = run(queue, claims)
    for step in range(1, 6):
        url = f"data:,{step}" + "x" * 100_000
        assert claims.preview(claim, Preview(index=0, step=step, steps=5, width=8, height=8, url=url))

    events = read_events(queue.connection, claim.job.id)

    assert [event.data["step"] for event in events if event.kind == "preview"] == [4, 5]
    assert [event.kind for event in events][:2] == ["queued", "started"]
