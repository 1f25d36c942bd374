"""Forecasts of the API, `contracts.forecast`, beside simulated workers whose steps the real policy orders.

Deterministic: no model, no queue and no clock. What was expected when a job was sent, and when it really ended.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from contracts.forecast.costs import JobCost, Measurements
from contracts.forecast.simulation import simulate
from contracts.forecast.snapshot import TIERS, QueuedJob, Snapshot, WaitingQueue, WorkerState
from contracts.memory.seconds import move_seconds
from worker.engine.costs import CallCosts
from worker.engine.policy import StepPolicy, Waiting

#: Seconds of a call, and of each image in it, by kind of job.
KINDS = {"small": (0.02, 0.01), "large": (0.05, 0.15), "other model": (0.03, 0.03)}
NOTHING = Measurements({}, {}, {}, {}, (0.0, 0.0))


@dataclass
class SimulatedJob:
    id: str
    kind: str
    steps: int
    images: int = 1
    owner: str = "me"
    tier: int = 1
    joins: bool = False
    at: float = 0.0
    worker: int | None = None
    done: int = 0
    last_served: int = 0
    ended_at: float | None = None

    @property
    def cost(self) -> JobCost:
        call, image = KINDS[self.kind]
        alone = self.steps * (call + image * self.images)
        return JobCost(0.0, self.steps, self.images, call, image, 1.0, 0.25, alone)

    def queued(self, now: float) -> QueuedJob:
        return QueuedJob(
            id=self.id,
            owner=self.owner,
            tier=self.tier,
            model="b" if self.kind == "other model" else "a",
            cost=self.cost,
            joins=self.kind if self.joins else "",
            steps_done=self.done,
            age_seconds=now - self.at,
            worker=None if self.worker is None else str(self.worker),
        )

    def call(self, now: float) -> Waiting:
        step_seconds = self.cost.step_seconds
        return Waiting(
            job_id=self.id,
            tier=self.tier,
            owner=self.owner,
            remaining_seconds=step_seconds * (self.steps - self.done),
            age_seconds=now - self.at,
            deadline_in_seconds=None,
            key=self.kind if self.joins else None,
            additions=None,
            kind=self.kind,
            rows=self.images,
            images=self.images,
            max_images=16,
            turn="b" if self.kind == "other model" else "a",
            last_served=self.last_served,
        )


class Service:
    """Workers that claim in order of age, and serve step by step."""

    def __init__(self, workers: int = 1, max_jobs: int = 16) -> None:
        self.max_jobs = max_jobs
        self.jobs: list[SimulatedJob] = []
        self.policies = [StepPolicy() for _ in range(workers)]
        self.clocks = [0.0] * workers
        self.calls = 0
        self.accounts: dict[str, float] = {}
        self.costs = CallCosts()
        for kind, (call, image) in KINDS.items():
            for rows in range(1, 17):
                for _ in range(3):
                    self.costs.learn(kind, rows, call + image * rows)

    def snapshot(self, now: float) -> Snapshot:
        alive = [job for job in self.jobs if job.ended_at is None]
        running = [job.queued(now) for job in alive if job.worker is not None]
        waiting = [job.queued(now) for job in alive if job.worker is None]
        queues = [WaitingQueue(job.tier, job.owner, 1, [job]) for job in waiting]
        workers = [WorkerState(str(n), max_jobs=self.max_jobs, warm="ab") for n in range(len(self.policies))]
        counts = [sum(job.tier == tier for job in waiting) for tier in range(len(TIERS))]
        return Snapshot(
            now,
            NOTHING,
            workers,
            running,
            queues,
            [dict(self.accounts)] * len(TIERS),
            [0.0] * len(TIERS),
            [0.0] * len(TIERS),
            counts,
        )

    def send(self, job: SimulatedJob) -> float:
        """Accept a job; returns the seconds until its expected end."""
        self.jobs.append(job)
        return simulate(self.snapshot(job.at), until=job.id)[job.id].end_seconds

    @staticmethod
    def latency(job: SimulatedJob) -> float:
        """From a job's arrival to its end."""
        assert job.ended_at is not None
        return job.ended_at - job.at

    def run(self, until: float = float("inf")) -> None:
        """Serve until a time, or until all jobs have ended."""
        while True:
            index = min(range(len(self.clocks)), key=lambda n: self.clocks[n])
            now = self.clocks[index]
            if now >= until or all(job.ended_at is not None for job in self.jobs):
                return
            self._claim(index, now)
            calls = [job.call(now) for job in self.jobs if job.worker == index and job.ended_at is None]
            if not calls:
                self.clocks[index] = min(until, now + 0.01)
                continue
            self._serve(index, calls, now)

    def _claim(self, index: int, now: float) -> None:
        """By tier, then the owner with the smallest account, then by age; idle workers first."""
        while True:
            flights = [
                [job for job in self.jobs if job.worker == n and job.ended_at is None]
                for n in range(len(self.clocks))
            ]
            waiting = [
                job
                for job in self.jobs
                if job.worker is None
                and job.at <= now
                and sum(other.tier <= job.tier for other in flights[index]) < self.max_jobs
            ]
            if not waiting or (flights[index] and not all(flights)):
                return
            job = min(waiting, key=lambda job: (job.tier, self.accounts.get(job.owner, 0.0), job.at))
            job.worker = index
            self.accounts[job.owner] = self.accounts.get(job.owner, 0.0) + job.cost.mean_seconds

    def _serve(self, index: int, calls: Sequence[Waiting], now: float) -> None:
        self.calls += 1
        chosen = self.policies[index].choose(calls, self.costs, max_rows=16)
        call, image = KINDS[str(chosen[0].kind)]
        seconds = call + image * sum(one.rows for one in chosen)
        self.policies[index].served(chosen, seconds)
        self.clocks[index] = now + seconds
        served = {one.job_id for one in chosen}
        for job in self.jobs:
            if job.id in served:
                job.done, job.last_served = job.done + 1, self.calls
                job.ended_at = self.clocks[index] if job.done == job.steps else None


def mixed_load(seed: int, count: int, per_second: float, tiers: Sequence[int] = (1,)) -> list[SimulatedJob]:
    drawn, at, jobs = random.Random(seed), 0.0, []
    for number in range(count):
        at += drawn.expovariate(per_second)
        kind = drawn.choice(list(KINDS))
        jobs.append(
            SimulatedJob(
                id=str(number), kind=kind, steps=drawn.choice([4, 12, 30, 100]), images=drawn.choice([1, 1, 2]),
                owner=drawn.choice(["one", "two", "three"]), tier=drawn.choice(tiers),
                joins=drawn.random() < 0.6, at=at,
            )
        )  # fmt: skip
    return jobs


def errors(jobs: Sequence[SimulatedJob], workers: int = 1, max_jobs: int = 16) -> list[float]:
    """By what part each estimate was wrong that was made when the job was sent: later ones may go before it."""
    service, expected = Service(workers, max_jobs), {}
    for job in jobs:
        service.run(job.at)
        expected[job.id] = service.send(job)
    service.run()
    return [abs(expected[job.id] / service.latency(job) - 1) for job in jobs]


def share_within(errors: Sequence[float], limit: float = 0.25) -> float:
    return sum(error <= limit for error in errors) / len(errors)


@pytest.mark.parametrize(("workers", "per_second", "tiers"), [(1, 0.1, (0, 1, 1, 2)), (2, 0.3, (1,))])
def test_four_of_five_jobs_of_a_mixed_load_end_within_a_quarter_of_their_estimate(
    workers: int, per_second: float, tiers: Sequence[int]
) -> None:
    found = [error for seed in range(3) for error in errors(mixed_load(seed, 40, per_second, tiers), workers)]

    assert share_within(found) >= 0.8


@pytest.mark.parametrize("max_jobs", [16, 4])
def test_jobs_that_wait_end_when_they_are_expected_to_if_none_come(max_jobs: int) -> None:
    found = []
    for seed in range(2):
        service = Service(max_jobs=max_jobs)
        service.jobs = mixed_load(seed, 30, 1000.0)
        expected = simulate(service.snapshot(now=0.1))
        service.run()
        found += [abs(expected[job.id].end_seconds / service.latency(job) - 1) for job in service.jobs]

    assert share_within(found) >= 0.8


def test_a_short_job_behind_four_of_100_steps_goes_first_and_is_told_so() -> None:
    jobs = [SimulatedJob(str(number), "large", 100) for number in range(4)]

    found = errors([*jobs, SimulatedJob("short", "large", 4, at=0.05)])

    assert found[-1] < 0.25


def test_a_low_job_behind_four_of_100_steps_is_told_of_its_small_share() -> None:
    jobs = [SimulatedJob(str(number), "large", 100) for number in range(4)]

    found = errors([*jobs, SimulatedJob("low", "large", 20, tier=2, at=0.05)])

    assert found[-1] < 0.25


def _snapshot_of(running: Sequence[QueuedJob], waiting: Sequence[QueuedJob], **worker: Any) -> Snapshot:
    states = [WorkerState("0", **{"warm": "ab", **worker})]
    queues = [WaitingQueue(job.tier, job.owner, 1, [job]) for job in waiting]
    zeros = [0.0] * len(TIERS)
    return Snapshot(
        0.0, NOTHING, states, running, queues, [{}] * len(TIERS), zeros, zeros, [0, len(waiting), 0, 0]
    )


def test_a_job_that_must_run_alone_waits_for_all_that_its_worker_has_begun_and_nothing_joins_it() -> None:
    first = SimulatedJob("first", "small", 100, worker=0).queued(0.0)
    alone = replace(SimulatedJob("alone", "small", 100, at=-2.0).queued(0.0), alone=True)
    later = SimulatedJob("later", "small", 10, at=-1.0).queued(0.0)
    found = simulate(_snapshot_of([first], [alone, later]))
    seconds = first.cost.alone_seconds
    assert found["first"].end_seconds == pytest.approx(seconds)
    assert found["alone"].claim_seconds == pytest.approx(seconds)
    assert found["later"].claim_seconds == pytest.approx(2 * seconds)
    ordinary = simulate(_snapshot_of([first], [replace(alone, alone=False), later]))
    assert ordinary["later"].claim_seconds == 0.0


def test_weights_that_must_be_moved_in_take_their_time() -> None:
    served = SimulatedJob("served", "small", 10, worker=0, done=1).queued(0.0)
    other = SimulatedJob("other", "other model", 100, worker=0).queued(0.0)
    sizes = {"a": 20 * 10**9, "b": 20 * 10**9}
    both_fit = simulate(_snapshot_of([served, other], [], budget_bytes=50 * 10**9, model_bytes=sizes))
    one_fits = simulate(_snapshot_of([served, other], [], budget_bytes=30 * 10**9, model_bytes=sizes))
    assert one_fits["served"].end_seconds == pytest.approx(both_fit["served"].end_seconds)
    assert one_fits["other"].end_seconds == pytest.approx(
        both_fit["other"].end_seconds + move_seconds(sizes["b"]), rel=0.01
    )


def test_owners_who_take_turns_with_models_that_have_no_room_beside_each_other_are_all_served() -> None:
    jobs = [
        SimulatedJob(str(number), "other model" if number % 2 else "small", 50, worker=0, owner=str(number))
        for number in range(8)
    ]
    found = simulate(
        _snapshot_of(
            [job.queued(0.0) for job in jobs],
            [],
            budget_bytes=30 * 10**9,
            model_bytes=dict.fromkeys("ab", 20 * 10**9),
        )
    )
    assert found.keys() == {job.id for job in jobs}
    seconds = sum(job.cost.alone_seconds for job in jobs)
    assert seconds < max(one.end_seconds for one in found.values()) < seconds + 20 * move_seconds(20 * 10**9)
