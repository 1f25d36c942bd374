"""One device, simulated: jobs arrive, a policy chooses, calls take what their rows take."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from worker.engine.costs import CallCosts
from worker.engine.policy import Policy, Waiting

#: Of a call of one row.
STEP_SECONDS = 0.1
#: Steps of a job -> its share among the jobs.
MIX = {4: 3, 28: 5, 50: 2}
MEAN_STEPS = sum(steps * share for steps, share in MIX.items()) / sum(MIX.values())


@dataclass
class Job:
    """One job; a step of it is a call of one row."""

    name: str
    steps: int
    arrival: float
    tier: int = 1
    owner: str = "owner"
    turn: Hashable = "model"
    deadline: float | None = None
    left: int = field(init=False)
    last_served: int = 0
    first_step: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        self.left = self.steps

    @property
    def latency(self) -> float:
        """From its arrival to its end."""
        assert self.end is not None, f"{self.name} did not end"
        return self.end - self.arrival

    def waiting(self, now: float) -> Waiting:
        """What the policy is told of it."""
        return Waiting(
            job_id=self.name,
            tier=self.tier,
            owner=self.owner,
            remaining_seconds=self.left * STEP_SECONDS,
            age_seconds=now - self.arrival,
            deadline_in_seconds=None if self.deadline is None else self.deadline - now,
            key=self.turn,
            additions=None,
            kind=(self.turn, "denoiser"),
            rows=1,
            images=1,
            max_images=8,
            turn=self.turn,
            last_served=self.last_served,
        )


def poisson_jobs(count: int, load: float, seed: int, **changes: Callable[[random.Random], object]) -> list[Job]:
    """So many jobs of the mix, arriving at this load; `changes` draw further fields of each."""
    chance, other_chance, now, jobs = random.Random(seed), random.Random(seed), 0.0, []
    for number in range(count):
        now += chance.expovariate(load / (MEAN_STEPS * STEP_SECONDS))
        steps = chance.choices(list(MIX), list(MIX.values()))[0]
        fields = {name: draw(other_chance) for name, draw in changes.items()}
        jobs.append(Job(f"job {number}", steps, now, **fields))  # type: ignore[arg-type]
    return jobs


def run(
    policy: Policy,
    jobs: Sequence[Job],
    slope: float,
    until: float = float("inf"),
    move: Callable[[Hashable], float] = lambda _: 0.0,
) -> list[Job]:
    """Serve the jobs; a call of n rows takes 1 + slope (n - 1) steps. Returns them, with what became of each."""
    costs, coming = CallCosts(), sorted(jobs, key=lambda job: job.arrival, reverse=True)
    live: list[Job] = []
    turn: Hashable | None = None
    now, calls = 0.0, 0
    while (coming or live) and now < until:
        if not live:
            now = max(now, coming[-1].arrival)
        while coming and coming[-1].arrival <= now:
            live.append(coming.pop())
        by_name = {job.name: job for job in live}
        chosen = policy.choose([job.waiting(now) for job in live], costs, max_rows=8)
        calls += 1
        seconds = STEP_SECONDS * (1 + slope * (len(chosen) - 1))
        costs.learn(chosen[0].kind, len(chosen), seconds)
        if chosen[0].turn != turn:
            now, turn = now + move(chosen[0].turn), chosen[0].turn
        now += seconds
        policy.served(chosen, seconds)
        for job in (by_name[call.job_id] for call in chosen):
            job.left, job.last_served = job.left - 1, calls
            job.first_step = job.first_step if job.first_step is not None else now
            job.end = now if job.left == 0 else None
        live = [job for job in live if job.left]
    return list(jobs)


def latencies(jobs: Sequence[Job], steps: int | None = None) -> list[float]:
    """Of all, or of those with so many steps; sorted."""
    return sorted(job.latency for job in jobs if steps in (None, job.steps))


def percentile(values: Sequence[float], share: float) -> float:
    """Of sorted values."""
    return values[round(share * (len(values) - 1))]
