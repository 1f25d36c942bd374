"""What is known of the queue at one moment: jobs, accounts of owners, workers. `snapshot_reader.py` reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from contracts.forecast.costs import JobCost, Measurements

#: Names of the tiers, the highest first, as the queue's scripts spell them.
TIERS = ("high", "normal", "low", "training")
#: What a worker is taken to have where an older release reports nothing of it.
MAX_JOBS, MAX_ROWS = 16, 16


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits or runs.

    Attributes:
        tier: 0 for `high`, 1 for `normal`, 2 for `low`.
        joins: equal for jobs that can share calls of the denoiser; empty: makes its calls alone.
        seeded: its request named a seed, and leaves it to the worker whether its calls are joined.
        steps_done: of a running job.
        age_seconds: since it was accepted.
        deadline_in_seconds: until its deadline; None: it has none.
        worker: that runs it; None: it waits.
        ready_in_seconds: until it can be claimed: its files are being prepared, or its worker has died and its
            lease must expire.
        unknown: why nobody can say when it begins; empty otherwise.
        alone: it runs on a worker that has no other jobs: it may be what ended the last one.
    """

    id: str
    owner: str
    tier: int
    model: str
    cost: JobCost
    joins: str = ""
    seeded: bool = False
    steps_done: float = 0.0
    age_seconds: float = 0.0
    deadline_in_seconds: float | None = None
    worker: str | None = None
    ready_in_seconds: float = 0.0
    unknown: str = ""
    alone: bool = False


@dataclass(frozen=True)
class WorkerState:
    """A live worker.

    Attributes:
        claims: whether it takes further jobs; a paused one, or one that must stop, only ends what it has begun.
        max_jobs: in flight, of one tier and those above it.
        max_rows: of one joined call.
        joins_seeds: whether calls of jobs with a named seed are joined.
        warm: models that are loaded, the least recently used first.
        budget_bytes: device memory for weights; None: no limit.
        model_bytes: model -> device memory of its weights, of models that were loaded.
    """

    id: str
    claims: bool = True
    max_jobs: int = MAX_JOBS
    max_rows: int = MAX_ROWS
    joins_seeds: bool = False
    warm: Sequence[str] = ()
    budget_bytes: int | None = None
    model_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class WaitingQueue:
    """The queue of one tier, model and owner.

    Attributes:
        length: of all its jobs; `jobs` are the first of them.
    """

    tier: int
    owner: str
    length: int
    jobs: Sequence[QueuedJob]

    def is_of(self, job: QueuedJob) -> bool:
        """Whether jobs like this one, of its tier, owner and model, wait here."""
        of_model = not self.jobs or self.jobs[0].model == job.model
        return of_model and (self.tier, self.owner) == (job.tier, job.owner)

    @cached_property
    def mean_seconds(self) -> float:
        """Of a job, by those that were read."""
        return sum(job.cost.mean_seconds for job in self.jobs) / len(self.jobs) if self.jobs else 0.0


@dataclass(frozen=True)
class Snapshot:
    """The queue at one moment.

    Attributes:
        now: Unix seconds on Redis' clock.
        accounts: per tier, owner -> seconds that it was served, of owners with jobs in the queues that were read.
        floors: per tier, the account of an owner without one.
        owed: per tier, seconds that it is owed for those that higher tiers were served.
        lower_tier_share: of the seconds, for a tier while a higher one always has jobs.
        overdue_seconds: age from which a job may have its model loaded though jobs of warm models wait.
        waiting_jobs: per tier, number of all waiting jobs.
    """

    now: float
    measurements: Measurements
    workers: Sequence[WorkerState]
    running: Sequence[QueuedJob]
    queues: Sequence[WaitingQueue]
    accounts: Sequence[Mapping[str, float]]
    floors: Sequence[float]
    owed: Sequence[float]
    waiting_jobs: Sequence[int]
    lower_tier_share: float = 0.1
    overdue_seconds: float = 20.0

    @property
    def size(self) -> int:
        """Jobs that were read."""
        return len(self.running) + sum(len(queue.jobs) for queue in self.queues)

    def has_read_all(self, tier: int) -> bool:
        """Whether all waiting jobs of a tier, and of those above it, were read."""
        read = sum(len(queue.jobs) for queue in self.queues if queue.tier <= tier)
        return read >= sum(self.waiting_jobs[: tier + 1])

    def account(self, tier: int, owner: str) -> float:
        """Seconds that an owner was served, in a tier's ledger."""
        return self.accounts[tier].get(owner, self.floors[tier])

    def find(self, id: str) -> QueuedJob | None:
        """A job that was read."""
        return self._by_id.get(id)

    @cached_property
    def _by_id(self) -> Mapping[str, QueuedJob]:
        waiting = (job for queue in self.queues for job in queue.jobs)
        return {job.id: job for job in (*waiting, *self.running)}

    def with_place(self, place: Place) -> Snapshot:
        """A copy with one more waiting job."""
        # Its age was read later than the others', which must come before it.
        job = replace(place.job, age_seconds=place.job.age_seconds - (place.now - self.now))
        if self.find(job.id) is not None:
            return self
        accounts = [dict(owners) for owners in self.accounts]
        accounts[job.tier].setdefault(job.owner, place.account)
        waiting_jobs = list(self.waiting_jobs)
        if self.has_read_all(job.tier):
            others = [queue for queue in self.queues if not queue.is_of(job)]
            before = [one for queue in self.queues if queue.is_of(job) for one in queue.jobs]
            queue = WaitingQueue(job.tier, job.owner, len(before) + 1, [*before, job])
            waiting_jobs[job.tier] += 1
            return replace(self, queues=[*others, queue], accounts=accounts, waiting_jobs=waiting_jobs)
        return replace(self, accounts=accounts)


@dataclass(frozen=True)
class Place:
    """Place of one waiting job in its queue.

    Attributes:
        now: Unix seconds on Redis' clock.
        ahead: jobs before it in its own queue.
        account: of its owner, in its tier.
    """

    now: float
    job: QueuedJob
    ahead: int
    account: float
