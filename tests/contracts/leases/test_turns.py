"""Owners share the workers in seconds: whose job is next, on a real Redis without a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from contracts.errors import Conflict
from contracts.jobs.records import JobRecord, JobState
from contracts.leases.claim import Claim
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.requests.schema import Priority
from tests.support.claims import MakeClaims, reports, take
from tests.support.parameters import parameters
from tests.support.worker_reports import report_worker

#: Seconds that one step of one image takes in these tests.
PACE = 0.5


def submit(
    queue: JobQueue, owner: str, count: int = 1, priority: Priority = Priority.NORMAL, **changes: Any
) -> list[str]:
    fields = parameters(batchable=False, **changes)
    return [queue.submit(fields, owner=owner, priority=priority).id for _ in range(count)]


def account(queue: JobQueue, owner: str, tier: str = "normal") -> float | None:
    return queue.connection.zscore(keys.ACCOUNTS + tier, owner)


def let_run(queue: JobQueue, claim: Claim, seconds: float) -> None:
    """Have a claimed job run since some seconds ago."""
    started = queue.now() - seconds
    queue.connection.hset(keys.JOB + claim.job.id, "started_at", f"{started:.6f}")


def run(claims: Claims, seconds_per_image_step: float = PACE) -> Claim | None:
    """Claim the next job and complete it, as if it had taken its time."""
    claim = claims.claim(ClaimCriteria())
    if claim is None:
        return None
    work = claim.job.parameters.work
    seconds = work["image_steps"] * seconds_per_image_step
    measured = {"work": work, "seconds": seconds}
    claims.finish(claim, JobState.COMPLETED, measured=measured, used_seconds=seconds)
    return claim


def served(claims: Claims, count: int) -> list[str]:
    """The owners of the next jobs."""
    ran = [run(claims) for _ in range(count)]
    return [claim.job.owner for claim in ran if claim is not None]


def eta_seconds(queue: JobQueue, job: JobRecord) -> float | None:
    position = queue.eta.position(job)
    return None if position is None else position.eta_seconds


def test_an_owner_of_huge_jobs_gets_as_many_seconds_as_one_of_small_jobs(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    submit(queue, "huge", 3, num_inference_steps=100)
    submit(queue, "small", 40, num_inference_steps=5)
    claims = make_claims()

    order = served(claims, 30)

    # One of the huge jobs takes as long as twenty of the small ones.
    assert order[:2] in (["huge", "small"], ["small", "huge"])
    assert Counter(order[:22])["small"] in (20, 21)
    assert Counter(order)["huge"] == 2


@pytest.mark.parametrize("change", [{"num_images": 8}, {"width": 256, "height": 256}])
def test_more_images_and_larger_ones_cost_more(
    queue: JobQueue, make_claims: MakeClaims, change: dict[str, Any]
) -> None:
    submit(queue, "large", 2, **change)
    submit(queue, "small", 2)
    claims = make_claims()
    claims.claim(ClaimCriteria())
    claims.claim(ClaimCriteria())

    large, small = account(queue, "large"), account(queue, "small")

    assert large is not None
    assert small is not None
    assert large > 4 * small


def test_jobs_on_several_models_give_no_more_turns(queue: JobQueue, make_claims: MakeClaims) -> None:
    for number in range(5):
        submit(queue, "spread", 4, model=f"model-{number}")
    submit(queue, "plain", 10, model="model-0")

    order = served(make_claims(), 12)

    assert abs(Counter(order)["plain"] - 6) <= 1


def test_a_model_that_is_loaded_does_not_keep_its_owner_in_front(queue: JobQueue, make_claims: MakeClaims) -> None:
    submit(queue, "loaded", 10, model="warm")
    claims = make_claims(overdue_seconds=0)
    claims.claim(ClaimCriteria(warm=["warm"]))
    submit(queue, "other", 1, model="cold")

    claim = take(claims, ClaimCriteria(warm=["warm"]))

    # All of the first owner's jobs are older, and their model is loaded.
    assert claim.job.owner == "other"


def test_what_one_priority_used_counts_in_the_others(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims()
    submit(queue, "both", 1, Priority.HIGH, num_inference_steps=40)
    submit(queue, "both", 10)
    submit(queue, "normal", 10)

    assert served(claims, 10) == ["both", *["normal"] * 9]


def test_time_without_jobs_is_not_saved_up(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims()
    submit(queue, "late", 1)
    submit(queue, "busy", 40)
    served(claims, 20)
    submit(queue, "late", 10)

    order = served(claims, 10)

    assert Counter(order)["late"] in (5, 6)
    assert order[0] == "late"


def test_a_debt_is_not_lost_by_pausing(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims()
    submit(queue, "steady", 20)
    submit(queue, "heavy", 1, num_inference_steps=40)
    served(claims, 2)  # its only job is done, and it waits for nothing
    submit(queue, "heavy", 1)

    assert served(claims, 9) == ["steady"] * 9
    assert "heavy" in served(claims, 2)


def test_an_owner_who_waits_in_a_low_tier_gives_newcomers_no_credit_in_others(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    claims = make_claims()
    submit(queue, "patient", 1, Priority.LOW, num_inference_steps=200)
    submit(queue, "busy", 40)
    served(claims, 10)
    submit(queue, "new", 20)

    assert abs(Counter(served(claims, 10))["new"] - 5) <= 1


Ending = Callable[[JobQueue, Claims, Claim], object]


def expire_lease(queue: JobQueue, claims: Claims, claim: Claim) -> None:
    queue.connection.zadd(keys.LEASES, {claim.job.id: 1})
    claims.reap()


def cancel(queue: JobQueue, claims: Claims, claim: Claim) -> None:
    with suppress(Conflict):
        queue.cancel(claim.job.id)
    claims.finish(claim, JobState.CANCELLED)


def cancel_and_lose(queue: JobQueue, claims: Claims, claim: Claim) -> None:
    with suppress(Conflict):
        queue.cancel(claim.job.id)
    expire_lease(queue, claims, claim)


ENDINGS: dict[str, Ending] = {
    "finish": lambda _, claims, claim: claims.finish(claim, JobState.COMPLETED),
    "cancel": cancel,
    "cancel and lose": cancel_and_lose,
    "release": lambda _, claims, claim: claims.release(claim),
    "device failure": lambda _, claims, claim: claims.release(claim, device_failed=True),
    "lost claim": lambda _, claims, __: claims.release_lost([]),
    "reap": expire_lease,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_however_a_job_ends_its_owner_has_paid_the_measured_seconds_once(
    queue: JobQueue, make_claims: MakeClaims, ending: str
) -> None:
    submit(queue, "me", 2)
    claims = make_claims()
    claim = take(claims)
    predicted = account(queue, "me")
    let_run(queue, claim, 500)
    claims.advance(reports(claim, used_seconds=70))

    ENDINGS[ending](queue, claims, claim)
    for act in ENDINGS.values():
        act(queue, claims, claim)  # too late: the lease is gone

    assert predicted == pytest.approx(4 * 64 * 64 / 1e6 * 0.1)
    assert account(queue, "me") == pytest.approx(70)


@pytest.mark.parametrize("ending", ["finish", "release", "device failure"])
def test_an_owner_pays_the_seconds_that_the_worker_tells_at_the_end(
    queue: JobQueue, make_claims: MakeClaims, ending: str
) -> None:
    tell: dict[str, Callable[[Claims, Claim], object]] = {
        "finish": lambda claims, claim: claims.finish(claim, JobState.COMPLETED, used_seconds=90.0),
        "release": lambda claims, claim: claims.release(claim, used_seconds=90.0),
        "device failure": lambda claims, claim: claims.release(claim, device_failed=True, used_seconds=90.0),
    }
    submit(queue, "me", 2)
    claims = make_claims()
    claim = take(claims)
    claims.advance(reports(claim, used_seconds=70))

    tell[ending](claims, claim)

    assert account(queue, "me") == pytest.approx(90)


def test_a_job_that_never_reported_costs_the_time_since_its_start_up_to_what_was_predicted(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    claims = make_claims()
    submit(queue, "me", 9, num_inference_steps=40)
    run(claims)  # 20 s; later ones are predicted by it
    before = account(queue, "me") or 0.0
    short, long = take(claims), take(claims)
    let_run(queue, short, 5)
    let_run(queue, long, 5000)

    expire_lease(queue, claims, short)
    after_short = account(queue, "me") or 0.0
    expire_lease(queue, claims, long)

    assert 5 <= after_short - 20 - before < 20
    assert (account(queue, "me") or 0.0) - (after_short - 20) == pytest.approx(20)


def test_what_an_earlier_attempt_reported_is_not_paid_again(queue: JobQueue, make_claims: MakeClaims) -> None:
    submit(queue, "me", 2)
    claims = make_claims()
    first = take(claims)
    claims.advance(reports(first, used_seconds=70))
    expire_lease(queue, claims, first)

    expire_lease(queue, claims, take(claims))

    assert account(queue, "me") == pytest.approx(70, abs=1)


def test_workers_share_the_accounts(queue: JobQueue, make_claims: MakeClaims) -> None:
    submit(queue, "first", 10)
    submit(queue, "second", 10)
    workers = [make_claims(f"worker-{number}") for number in range(4)]

    order = [take(worker).job.owner for worker in workers]

    assert Counter(order) == {"first": 2, "second": 2}


def test_accounts_are_dropped_when_nobody_has_jobs(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims()
    for number in range(20):
        submit(queue, f"owner-{number}", 1, list(Priority)[number % 3])
    submit(queue, "cancels")

    queue.cancel(submit(queue, "cancels")[0])
    served(claims, 21)

    assert queue.connection.keys(keys.ACCOUNTS + "*") == []
    assert queue.connection.hgetall(keys.OWNER_LOAD) == {}


def test_jobs_that_an_earlier_release_queued_are_served_in_turn(queue: JobQueue, make_claims: MakeClaims) -> None:
    ids = [*submit(queue, "before", 2), *submit(queue, "also-before", 2)]
    for id in ids:
        queue.connection.hdel(keys.JOB + id, "work")
    queue.connection.delete(keys.OWNER_LOAD, *(keys.ACCOUNTS + tier for tier in Priority))
    submit(queue, "new", 2)

    order = served(make_claims(), 6)

    assert Counter(order) == {"before": 2, "also-before": 2, "new": 2}
    assert len(set(order[:3])) == 3
    assert queue.connection.hgetall(keys.OWNER_LOAD) == {}


def test_a_lower_priority_gets_a_share_while_a_higher_one_always_has_jobs(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    claims = make_claims()
    submit(queue, "important", 60, Priority.HIGH)
    submit(queue, "normal", 30)
    submit(queue, "background", 30, Priority.LOW)

    order = Counter(served(claims, 50))

    assert order["important"] >= 38
    assert 4 <= order["normal"] <= 6
    assert 4 <= order["background"] <= 6


def test_the_share_of_lower_priorities_is_a_setting(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims(lower_tier_share=0.3)
    submit(queue, "important", 40, Priority.HIGH)
    submit(queue, "normal", 30)

    order = Counter(served(claims, 40))

    assert 11 <= order["normal"] <= 13


def test_five_huge_jobs_of_high_priority_do_not_block_everybody(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims()
    submit(queue, "hostile", 5, Priority.HIGH, num_images=8, num_inference_steps=200)
    submit(queue, "hostile", 5, Priority.NORMAL, num_images=8, num_inference_steps=200)
    submit(queue, "honest", 1, Priority.HIGH, num_inference_steps=20)
    submit(queue, "normal", 20, num_inference_steps=20)

    order = served(claims, 31)

    # The honest owner of the same priority waits for one of them at most, and so do those of the lower one.
    # These get a tenth of the time: eight of their jobs for each.
    assert order[:3] == ["hostile", "honest", "normal"]
    third = [index for index, owner in enumerate(order) if owner == "hostile"][2]
    assert order[:third].count("normal") in (16, 17)


def test_a_job_joins_the_average_pace_by_its_images(queue: JobQueue, make_claims: MakeClaims) -> None:
    submit(queue, "me", 1, num_images=4)
    claims = make_claims()
    run(claims)

    assert queue.eta.run_seconds(parameters(num_images=1)) == pytest.approx(4 * PACE)
    assert queue.eta.run_seconds(parameters(num_images=8)) == pytest.approx(32 * PACE)
    # Another size is estimated from the model's pace by its pixels.
    assert queue.eta.run_seconds(parameters(width=128)) == pytest.approx(8 * PACE)
    assert queue.eta.run_seconds(parameters(model="other")) is None


def test_an_estimate_counts_the_turns_of_other_owners(queue: JobQueue, make_claims: MakeClaims) -> None:
    claims = make_claims()
    submit(queue, "me")
    run(claims)
    run_seconds = 4 * PACE
    report_worker(queue, "first", None, max_jobs=1, warm=["shapes-sdxl"])
    submit(queue, "crowd", 10)
    submit(queue, "pair", 2)

    (first, second) = (queue.submit(parameters(batchable=False), owner="me") for _ in range(2))

    assert eta_seconds(queue, first) == pytest.approx(3 * run_seconds)
    assert eta_seconds(queue, second) == pytest.approx(6 * run_seconds)
    submit(queue, "urgent", 4, Priority.HIGH)
    assert eta_seconds(queue, first) == pytest.approx(7 * run_seconds)
