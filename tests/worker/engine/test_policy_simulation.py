"""The order against first come, first served, on one simulated device."""

from __future__ import annotations

import random
import statistics

import pytest

from tests.worker.engine.simulation import STEP_SECONDS, Job, latencies, percentile, poisson_jobs, run
from worker.engine.policy import FifoPolicy, StepPolicy


@pytest.mark.parametrize("slope", [0.98, 0.55])
def test_at_load_0_8_short_jobs_hardly_wait_and_long_ones_not_twice_as_long(slope: float) -> None:
    fifo = run(FifoPolicy(), poisson_jobs(300, 0.8, seed=3), slope)
    steps = run(StepPolicy(), poisson_jobs(300, 0.8, seed=3), slope)
    assert statistics.mean(latencies(steps)) <= 0.75 * statistics.mean(latencies(fifo))
    assert percentile(latencies(steps, 4), 0.95) <= 0.2 * percentile(latencies(fifo, 4), 0.95)
    assert percentile(latencies(steps, 50), 0.99) <= 2 * percentile(latencies(fifo, 50), 0.99)


def test_a_high_job_begins_within_one_call() -> None:
    jobs = poisson_jobs(150, 0.9, seed=5)
    high = [Job(f"high {number}", 4, 17.0 * number, tier=0, owner="urgent") for number in range(20)]
    run(StepPolicy(), [*jobs, *high], slope=0.55)
    longest_call = STEP_SECONDS * (1 + 0.55 * 7)
    own_call = 1.1 * STEP_SECONDS  # others share it where they add a tenth
    assert all(job.first_step is not None for job in high)
    assert max((job.first_step or 0) - job.arrival for job in high) <= longest_call + own_call


def test_nobody_starves_under_overload() -> None:
    """Owner a: short jobs only, more than the device can serve. The others: a long job now and then."""
    stream = [Job(f"short {number}", 4, 0.3 * number, owner="a") for number in range(250)]
    chance = random.Random(1)
    others = [
        Job(f"{owner} {number}", 50, 30.0 * number + 10 * chance.random(), owner=owner)
        for owner in ("b", "c")
        for number in range(2)
    ]
    run(StepPolicy(), [*stream, *others], slope=1.0, until=75.0)
    assert max(latencies(others)) <= 8 * 50 * STEP_SECONDS
    served = sum(job.end is not None for job in stream)
    assert served * 4 * STEP_SECONDS >= 50
