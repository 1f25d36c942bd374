"""An estimate for a job in a queue that is too long to simulate: the work ahead of it, divided by the workers.

Jobs that were not read are taken to be like those of their queue that were. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.forecast.simulation import Expected
from contracts.forecast.snapshot import QueuedJob, Snapshot
from contracts.forecast.workers import JobInFlight


@dataclass(frozen=True)
class _Load:
    """Jobs and seconds."""

    jobs: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: _Load) -> _Load:
        return _Load(self.jobs + other.jobs, self.seconds + other.seconds)

    def times(self, factor: float) -> _Load:
        return _Load(self.jobs * factor, self.seconds * factor)


def estimate_deep(snapshot: Snapshot, job: QueuedJob, ahead_of_own: int) -> Expected:
    """What is expected of a waiting job; without a spread while no worker claims.

    Args:
        ahead_of_own: jobs before it in its own queue.
    """
    workers = sum(worker.claims for worker in snapshot.workers)
    own = _before_of_owner(snapshot, job, ahead_of_own)
    before = own + _before_in_tier(snapshot, job, own.seconds)
    before += _before_in_higher_tiers(snapshot, job, before.seconds)
    running = sum(JobInFlight.of(one).remaining_seconds for one in snapshot.running if one.tier <= job.tier)
    claim_seconds = (running + before.seconds) / max(1, workers)
    end_seconds = claim_seconds + job.cost.mean_seconds
    return Expected(round(before.jobs), claim_seconds, end_seconds, job.cost.spread if workers else None)


def _before_of_owner(snapshot: Snapshot, job: QueuedJob, ahead_of_own: int) -> _Load:
    """The owner's older jobs in its tier, of all models."""
    found = _Load()
    for queue in snapshot.queues:
        if queue.tier != job.tier or queue.owner != job.owner:
            continue
        if queue.jobs and queue.jobs[0].model == job.model:
            number = float(ahead_of_own)
        else:
            older = sum(one.age_seconds >= job.age_seconds for one in queue.jobs)
            number = float(queue.length if older == len(queue.jobs) else older)
        found += _Load(number, number * queue.mean_seconds)
    return found


def weight_of(snapshot: Snapshot, tier: int, owner: str | None = None) -> float:
    """How many waiting jobs of a tier there are for each in the queues that were read, one owner's left out."""
    read = sum(queue.length for queue in snapshot.queues if queue.tier == tier)
    own = sum(queue.length for queue in snapshot.queues if queue.tier == tier and queue.owner == owner)
    waiting = snapshot.waiting_jobs[tier]
    return max(1.0, (waiting - own) / (read - own)) if read > own else 1.0


def _before_in_tier(snapshot: Snapshot, job: QueuedJob, own_seconds: float) -> _Load:
    """Of each other owner in the tier, as much as brings its account to where this owner's will be then."""
    turn = snapshot.account(job.tier, job.owner) + own_seconds
    owners: dict[str, _Load] = {}
    for queue in snapshot.queues:
        if queue.tier == job.tier and queue.owner != job.owner:
            load = _Load(queue.length, queue.length * queue.mean_seconds)
            owners[queue.owner] = owners.get(queue.owner, _Load()) + load
    found = _Load()
    for owner, load in owners.items():
        lead = turn - snapshot.account(job.tier, owner)
        mean = load.seconds / load.jobs if load.jobs else 0.0
        jobs = lead / mean if mean > 0 else (load.jobs if lead > 0 else 0.0)
        # The oldest job of an owner with an equal account goes first; of others, only those before the turn.
        jobs = min(load.jobs, max(0.0, jobs + 0.5))
        found += _Load(jobs, jobs * mean)
    weight = weight_of(snapshot, job.tier, job.owner)
    return found.times(weight)


def _before_in_higher_tiers(snapshot: Snapshot, job: QueuedJob, seconds: float) -> _Load:
    """Of each owner of higher tiers, until it has used more than this one; then until the share is reached."""
    share = snapshot.lower_tier_share
    limit_seconds = (seconds + job.cost.mean_seconds) * (1 - share) / share
    account = snapshot.account(job.tier, job.owner)
    found = _Load()
    for tier in range(job.tier):
        yielding, others, weight = _Load(), _Load(), weight_of(snapshot, tier)
        for queue in snapshot.queues:
            if queue.tier == tier:
                load = _Load(queue.length * weight, queue.length * weight * queue.mean_seconds)
                lead = max(0.0, account - snapshot.account(job.tier, queue.owner))
                part = min(1.0, lead / load.seconds) if load.seconds > 0 else 0.0
                others += load.times(part)
                yielding += load.times(1 - part)
        part = min(1.0, limit_seconds / yielding.seconds) if yielding.seconds > 0 else 1.0
        found += others + yielding.times(part)
    return found
