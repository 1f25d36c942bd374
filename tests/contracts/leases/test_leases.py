"""Leases, fencing, reaping and the end of claimed jobs, on a real Redis without a worker process."""

from __future__ import annotations

import threading

import pytest

from contracts.jobs.events import read_events
from contracts.jobs.failures import FailureCode
from contracts.jobs.receipt import Receipt, Weights
from contracts.jobs.records import JobError, JobState, Measured, Position, Progress
from contracts.leases.claim import Report
from contracts.leases.criteria import ClaimCriteria, MustRunAlone
from contracts.queue.client import JobQueue
from contracts.queue.eta import UNMEASURED
from tests.support.claims import MakeClaims, let_leases_expire, reports, take, take_all
from tests.support.parameters import parameters
from tests.support.worker_reports import report_worker


def names(queue: JobQueue, pattern: str) -> set[str]:
    return set(queue.connection.scan_iter(pattern))


def test_a_finished_job_is_complete_everywhere_at_once(queue: JobQueue, make_claims: MakeClaims) -> None:
    job = queue.submit(parameters())
    claims = make_claims()
    claim = take(claims)
    assert claims.finish(claim, JobState.COMPLETED, images=[])
    done = queue.fetch(job.id)
    assert done.state is JobState.COMPLETED
    assert done.finished_at is not None
    assert done.expires_at is not None
    assert queue.connection.zcard("darkroom:leases") == 0
    assert queue.connection.zrange(f"rq:finished:{job.queue}", 0, -1) == [job.id]
    assert queue.connection.exists(f"rq:wip:{job.queue}") == 0
    assert queue.connection.zscore("darkroom:expiry", job.id) == done.expires_at
    assert [event.kind for event in read_events(queue.connection, job.id)] == ["queued", "started", "completed"]


def test_a_worker_that_lost_its_lease_writes_nothing(queue: JobQueue, make_claims: MakeClaims) -> None:
    job = queue.submit(parameters())
    slow, fast = make_claims("slow"), make_claims("fast")
    old = take(slow)
    let_leases_expire(queue)
    assert fast.reap() == (1, [])
    new = take(fast)
    assert slow.extend([old]) == {job.id}
    assert slow.advance(reports(old, progress=Progress(step=1, steps=2))) == ["lost"]
    assert not slow.finish(old, JobState.COMPLETED, images=["stale"])
    assert not slow.release(old)
    assert fast.finish(new, JobState.COMPLETED, images=[])
    assert not slow.fail(old, JobError(code=FailureCode.INTERNAL, message="late", retryable=True))
    assert queue.fetch(job.id).state is JobState.COMPLETED
    assert queue.fetch(job.id).attempts == 2


def test_an_extended_lease_is_not_reaped(queue: JobQueue, make_claims: MakeClaims) -> None:
    queue.submit(parameters())
    claims = make_claims()
    running = take(claims)
    for _ in range(4):
        let_leases_expire(queue)
        assert claims.extend([running]) == set()
        assert claims.reap() == (0, [])


def test_a_job_whose_worker_was_lost_runs_again_first_and_alone(queue: JobQueue, make_claims: MakeClaims) -> None:
    ids = [queue.submit(parameters()).id for _ in range(3)]
    claims = make_claims()
    for _ in range(2):
        take(claims)
    let_leases_expire(queue)
    assert claims.reap() == (2, [])
    taken = take_all(claims)
    assert sorted(claim.job.id for claim in taken[:2]) == sorted(ids[:2])
    assert [claim.alone for claim in taken] == [True, True, False]


def test_a_job_that_kills_every_worker_fails(queue: JobQueue, make_claims: MakeClaims) -> None:
    job = queue.submit(parameters())
    claims = make_claims(max_attempts=2)
    for outcome in [(1, []), (0, [job.id])]:
        assert claims.claim(ClaimCriteria())
        let_leases_expire(queue)
        assert claims.reap() == outcome
    ended = queue.fetch(job.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.code is FailureCode.WORKER_LOST
    assert claims.claim(ClaimCriteria()) is None


def test_concurrent_reapers_requeue_each_lost_job_once(queue: JobQueue, make_claims: MakeClaims) -> None:
    """RQ's own registry clean-up, run by four threads over 200 jobs, created 800 queue entries."""
    jobs = [queue.submit(parameters(batchable=False)) for _ in range(50)]
    claims = make_claims()
    take_all(claims)
    let_leases_expire(queue)
    threads = [threading.Thread(target=claims.reap) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert queue.connection.llen(f"rq:queue:{jobs[0].queue}") == len(jobs)


def test_a_released_job_keeps_its_place_and_uses_up_no_attempt(queue: JobQueue, make_claims: MakeClaims) -> None:
    first = queue.submit(parameters(batchable=False))
    queue.submit(parameters(batchable=False))
    claims = make_claims()
    claim = take(claims)
    assert claims.release(claim)
    assert queue.fetch(first.id).state is JobState.QUEUED
    assert queue.fetch(first.id).attempts == 0
    assert take(claims).job.id == first.id


def test_progress_is_in_the_record_and_in_the_event_stream(queue: JobQueue, make_claims: MakeClaims) -> None:
    job = queue.submit(parameters())
    claims = make_claims()
    progress = Progress(step=1, steps=4, fraction=0.25, eta_seconds=3.0)
    assert claims.advance(reports(take(claims), progress=progress)) == ["on"]
    assert queue.fetch(job.id).progress.step == 1
    event = read_events(queue.connection, job.id)[-1]
    assert (event.kind, event.data["fraction"]) == ("progress", 0.25)


def test_a_cancelled_job_stops_and_the_jobs_with_it_continue(queue: JobQueue, make_claims: MakeClaims) -> None:
    jobs = [queue.submit(parameters()) for _ in range(3)]
    claims = make_claims()
    running = take_all(claims)
    queue.cancel(jobs[1].id)
    assert claims.advance(reports(*running, progress=Progress(step=1, steps=4))) == ["on", "cancel", "on"]


def test_each_running_job_reports_its_own_progress(queue: JobQueue, make_claims: MakeClaims) -> None:
    jobs = [queue.submit(parameters()) for _ in range(3)]
    claims = make_claims()
    first, second, third = take_all(claims)
    told = [
        Report(first, Progress(step=3, steps=4), 2.5),
        Report(second, None, 0.5),
        Report(third, Progress(step=1, steps=50), 0.25),
    ]
    assert claims.advance(told) == ["on"] * 3
    assert [queue.fetch(job.id).progress.step for job in jobs] == [3, 0, 1]
    used = [queue.connection.hget(f"darkroom:job:{job.id}", "used_seconds") for job in jobs]
    assert used == ["2.5", "0.5", "0.25"]
    kinds = [event.kind for event in read_events(queue.connection, jobs[1].id)]
    assert kinds == ["queued", "started"]


def test_a_running_job_stops_when_its_deadline_has_passed(queue: JobQueue, make_claims: MakeClaims) -> None:
    job = queue.submit(parameters(), deadline_seconds=1)
    claims = make_claims()
    running = take(claims)
    queue.connection.hset(f"darkroom:job:{job.id}", "deadline_at", "1.0")
    assert claims.advance(reports(running, progress=Progress(step=1, steps=4))) == ["deadline"]


def test_a_waiting_job_fails_when_its_deadline_passes(queue: JobQueue, make_claims: MakeClaims) -> None:
    job = queue.submit(parameters(), deadline_seconds=100)
    claims = make_claims()
    claims.reap()
    assert queue.fetch(job.id).state is JobState.QUEUED
    queue.connection.zadd("darkroom:deadlines", {job.id: 1.0})
    claims.reap()
    ended = queue.fetch(job.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.code is FailureCode.DEADLINE_EXCEEDED
    assert claims.claim(ClaimCriteria()) is None


def test_a_cancelled_job_whose_worker_dies_ends_cancelled(queue: JobQueue, make_claims: MakeClaims) -> None:
    job = queue.submit(parameters())
    claims = make_claims()
    claims.claim(ClaimCriteria())
    queue.cancel(job.id)
    let_leases_expire(queue)
    claims.reap()
    assert queue.fetch(job.id).state is JobState.CANCELLED


def test_the_id_of_an_ended_job_in_a_queue_is_not_run_again(queue: JobQueue, make_claims: MakeClaims) -> None:
    job = queue.submit(parameters())
    claims = make_claims()
    claim = take(claims)
    claims.finish(claim, JobState.COMPLETED, images=[])
    queue.connection.rpush(f"rq:queue:{job.queue}", job.id)
    queue.connection.sadd("darkroom:waiting:normal", job.queue)
    assert claims.claim(ClaimCriteria()) is None
    assert names(queue, "darkroom:waiting:*") == set()


def test_an_execution_that_ends_its_job_twice_ends_it_once(queue: JobQueue, make_claims: MakeClaims) -> None:
    """The answer to the first call was lost, so the worker repeats it."""
    job = queue.submit(parameters())
    claims = make_claims()
    claim = take(claims)
    assert claims.finish(claim, JobState.COMPLETED, images=[])
    assert claims.finish(claim, JobState.COMPLETED, images=[])
    kinds = [event.kind for event in read_events(queue.connection, job.id)]
    assert kinds.count("completed") == 1


def test_jobs_of_a_claim_whose_answer_was_lost_are_requeued_without_using_up_an_attempt(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    job, other = queue.submit(parameters()), queue.submit(parameters())
    first, second = make_claims("first"), make_claims("second")
    first.claim(ClaimCriteria())
    second.claim(ClaimCriteria())
    third = queue.submit(parameters())
    known = take(first)
    assert first.release_lost([known]) == 1
    assert queue.fetch(third.id).state is JobState.RUNNING
    assert queue.fetch(job.id).state is JobState.QUEUED
    assert queue.fetch(job.id).attempts == 0
    assert queue.fetch(other.id).state is JobState.RUNNING


def test_waiting_times_are_estimated_from_the_measured_step_times(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    report_worker(queue, "first", None, max_jobs=1, warm=["shapes-sdxl"])
    first, second = queue.submit(parameters(batchable=False)), queue.submit(parameters(batchable=False))
    assert queue.eta.position(second) == Position(1, reason=UNMEASURED)
    claims = make_claims()
    claim = take(claims)
    receipt = Receipt(parameters=first.parameters, seeds=[0], model=Weights(id="x", sha256="0"))
    assert claims.complete(claim, [], receipt, measured=Measured(2.0))
    third = queue.submit(parameters(batchable=False))
    places = [queue.eta.position(job) for job in (first, second, third)]
    # Two seconds for four steps are 0.5 s per step, so each job takes 2 s; zero and one jobs are ahead.
    assert places[0] is None
    assert [place.ahead for place in places[1:] if place] == [0, 1]
    assert [place.eta_seconds for place in places[1:] if place] == pytest.approx([2.0, 4.0])


def test_one_busy_worker_makes_room_for_a_job_that_must_run_alone_and_the_others_go_on(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    suspect, others = queue.submit(parameters()), [queue.submit(parameters()) for _ in range(3)]
    first, second, third = make_claims("first"), make_claims("second"), make_claims("third")
    assert first.release(take(first), device_failed=True)
    busy = ClaimCriteria(in_flight=1)
    for _ in range(2):
        with pytest.raises(MustRunAlone):
            first.claim(busy)
        assert take(second, busy).job.id == others.pop(0).id
    alone = take(third, ClaimCriteria())  # one without jobs need not wait for the other
    assert (alone.job.id, alone.alone) == (suspect.id, True)
    assert take(first, busy).job.id == others[0].id


def test_jobs_are_claimed_as_they_were_accepted_though_clocks_were_set_back_meanwhile(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    jobs = [queue.submit(parameters(), owner=owner) for owner in "cab"]
    for number, job in enumerate(jobs):
        queue.connection.hset(f"darkroom:job:{job.id}", "created_at", job.created_at - number)
    claims = make_claims()
    assert [take(claims).job.id for _ in jobs] == [job.id for job in jobs]


def test_a_job_whose_devices_fail_is_requeued_alone_and_fails_after_the_limit(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    job, claims = queue.submit(parameters()), make_claims()
    for _ in range(2):
        claim = take(claims)
        assert claims.release(claim, device_failed=True)
        assert (queue.fetch(job.id).state, queue.fetch(job.id).attempts) == (JobState.QUEUED, 0)
        assert queue.connection.hget(f"darkroom:job:{job.id}", "solo") == "1"
    claim = take(claims)
    assert claims.release(claim, device_failed=True)
    failed = queue.fetch(job.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.code is FailureCode.WORKER_LOST
    assert not claims.release(claim, device_failed=True)
