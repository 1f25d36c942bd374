"""Positions and times of waiting jobs count all that is served before them, on a real Redis without a worker."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.jobs.records import JobRecord, Progress, pace_key
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.requests.schema import Priority
from tests.support.claims import MakeClaims
from tests.support.parameters import parameters

#: Seconds that one step of one image takes in these tests, of each model.
PACE = 0.5
MODELS = ("sdxl", "sd3")


@pytest.fixture(autouse=True)
def measured(queue: JobQueue) -> None:
    """Jobs of both models have run before."""
    for model in MODELS:
        for steps in (2, 100):
            queue.connection.hset(keys.IMAGE_PACE, pace_key(job(model, steps)), PACE)


def job(model: str = "sdxl", steps: int = 100) -> Any:
    return parameters(model=model, num_inference_steps=steps, num_images=1, batchable=False)


def submit(
    queue: JobQueue, model: str = "sdxl", steps: int = 100, owner: str = "me", priority: Priority = Priority.NORMAL
) -> JobRecord:
    return queue.submit(job(model, steps), owner=owner, priority=priority)


def position(queue: JobQueue, record: JobRecord) -> Any:
    """Jobs ahead, and seconds to the end."""
    found = queue.eta.position(record)
    assert found is not None
    return found.ahead, found.eta_seconds


def test_a_short_job_behind_long_ones_waits_for_their_seconds(queue: JobQueue) -> None:
    for _ in range(4):
        submit(queue)

    short = submit(queue, steps=2)

    assert position(queue, short) == (4, pytest.approx(4 * 100 * PACE + 2 * PACE))


def test_running_jobs_count_with_what_is_left_of_them(queue: JobQueue, make_claims: MakeClaims) -> None:
    running = submit(queue)
    make_claims().claim(ClaimCriteria())
    waiting = submit(queue, steps=2)

    assert position(queue, waiting) == (0, pytest.approx(100 * PACE + 2 * PACE))
    progress = Progress(step=75, steps=100, fraction=0.75)
    queue.connection.hset(keys.JOB + running.id, "progress", progress.model_dump_json())
    assert position(queue, waiting) == (0, pytest.approx(25 * PACE + 2 * PACE))


def test_a_full_queue_takes_a_job_when_the_first_running_one_ends(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    for steps in (100, 20):
        submit(queue, steps=steps)
    claims = make_claims()
    for _ in range(2):
        claims.claim(ClaimCriteria())

    # It does not matter how long the refused job would take.
    assert queue.eta.seconds_to_next_claim(submit(queue, steps=2)) == 20 * PACE


def test_older_jobs_of_other_models_count(queue: JobQueue) -> None:
    for _ in range(3):
        submit(queue, "sd3")
    waiting = submit(queue, steps=2)
    submit(queue, "sd3")

    assert position(queue, waiting) == (3, pytest.approx(3 * 100 * PACE + 2 * PACE))


def test_a_lower_tier_waits_for_the_higher_ones(queue: JobQueue) -> None:
    for steps in (4, 6):
        submit(queue, steps=steps)
    submit(queue, steps=8, priority=Priority.HIGH)

    low = submit(queue, steps=2, priority=Priority.LOW)

    assert position(queue, low) == (3, pytest.approx((4 + 6 + 8 + 2) * PACE))


def test_a_lower_tier_gets_its_share_of_the_time_before_those_who_have_used_more(
    queue: JobQueue, make_claims: MakeClaims
) -> None:
    for _ in range(10):
        submit(queue, owner="heavy")
    make_claims().claim(ClaimCriteria())

    low = submit(queue, steps=2, priority=Priority.LOW)

    # The running job, then nine tenths of the time until this tier has got a tenth.
    assert position(queue, low) == (1, pytest.approx((100 + 2 * 9 + 2) * PACE))


def test_a_higher_tier_waits_for_no_lower_one(queue: JobQueue) -> None:
    for _ in range(3):
        submit(queue, priority=Priority.LOW)

    assert position(queue, submit(queue, steps=2)) == (0, pytest.approx(2 * PACE))


def test_another_owner_is_served_as_many_seconds_not_as_many_jobs(queue: JobQueue) -> None:
    for _ in range(60):
        submit(queue, steps=2, owner="other")
    mine = [submit(queue, steps=100) for _ in range(2)]

    # 100 steps of mine are 50 jobs of the other, and the other's first came before.
    assert position(queue, mine[1]) == (52, pytest.approx((100 + 51 * 2 + 100) * PACE))


def test_many_queues_are_estimated_from_their_first_jobs(queue: JobQueue) -> None:
    for number in range(30):
        for _ in range(20):
            submit(queue, steps=2, owner=f"owner-{number}")

    low = submit(queue, steps=100, priority=Priority.LOW)

    assert position(queue, low) == (600, pytest.approx((600 * 2 + 100) * PACE))
