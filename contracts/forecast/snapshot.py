"""What is known of the queue at one moment, as `queue_snapshot.lua` reads it in one step. Pure: reads no Redis."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from contracts.forecast.costs import JobCost, Measurements, read_object

#: Names of the tiers, the highest first, as the queue's scripts spell them.
TIERS = ("high", "normal", "low", "training")
#: States of workers that claim jobs.
_CLAIMING = frozenset({"starting", "idle", "busy"})
#: What a worker is taken to have where an older release reports nothing of it.
_MAX_JOBS, _MAX_ROWS = 16, 16


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
    max_jobs: int = _MAX_JOBS
    max_rows: int = _MAX_ROWS
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
        """The same with one more waiting job."""
        job = place.job
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
        ahead: jobs before it in its own queue.
        account: of its owner, in its tier.
    """

    job: QueuedJob
    ahead: int
    account: float


def read_place(text: str) -> Place:
    """Read what `queue_place.lua` returns."""
    found = json.loads(text)
    job = _job(found["job"], read_measurements(found["measured"]), float(found["now"]), set())
    return Place(job, int(found["ahead"]), float(found["account"]))


def read_snapshot(text: str) -> Snapshot:
    """Read what `queue_snapshot.lua` returns."""
    found = json.loads(text)
    now = float(found["now"])
    measurements = read_measurements(found["measured"])
    workers = [_worker(one) for one in _list(found["workers"])]
    live, paused = {worker.id for worker in workers}, frozenset(_list(found.get("paused")))
    running = [_job(one, measurements, now, live) for one in _list(found["running"])]
    queues = [
        WaitingQueue(
            tier=TIERS.index(queue["tier"]),
            owner=queue["owner"],
            length=int(queue["length"]),
            jobs=[_held(_job(one, measurements, now, live), paused) for one in _list(queue["jobs"])],
        )
        for queue in _list(found["queues"])
    ]
    tiers = [found["tiers"][name] for name in TIERS]
    return Snapshot(
        now=now,
        measurements=measurements,
        workers=workers,
        running=[job for job in running if job.worker is not None],
        # A job whose worker has died is put back at the front of its queue.
        queues=[*queues, *(WaitingQueue(one.tier, one.owner, 1, [one]) for one in running if one.worker is None)],
        accounts=[{name: float(value) for name, value in dict(tier["accounts"] or {}).items()} for tier in tiers],
        floors=[float(tier["floor"]) for tier in tiers],
        owed=[float(tier["owed"]) for tier in tiers],
        waiting_jobs=[
            int(tier["waiting"]) + sum(one.worker is None and one.tier == number for one in running)
            for number, tier in enumerate(tiers)
        ],
        lower_tier_share=float(found["share"]),
        overdue_seconds=float(found["overdue_seconds"]),
    )


def _list(value: Any) -> list[Any]:
    """Lua writes an empty list as an empty object."""
    return value if isinstance(value, list) else []


def read_measurements(found: Mapping[str, Any]) -> Measurements:
    """Read what `measured_costs` of accounts.lua returns."""
    models = {name: json.loads(text) for name, text in dict(found["models"] or {}).items()}
    calls = {name: json.loads(text) for name, text in dict(found["calls"] or {}).items()}
    seconds, megapixel_steps = json.loads(found.get("all_models") or "[0, 0]")
    return Measurements(
        paces={name: float(pace) for name, pace in dict(found["paces"] or {}).items()},
        models={name: (float(row[0]), float(row[1])) for name, row in models.items()},
        calls=calls,
        loads={name: float(load) for name, load in dict(found["loads"] or {}).items()},
        all_models=(float(seconds), float(megapixel_steps)),
    )


def _worker(found: Mapping[str, Any]) -> WorkerState:
    state = read_object(found.get("state"))
    bytes_of = state.get("model_bytes")
    warm = _list(state.get("warm"))
    return WorkerState(
        id=found["id"],
        claims=state.get("state", "idle") in _CLAIMING and not found.get("drained"),
        max_jobs=int(state.get("max_jobs") or _MAX_JOBS),
        max_rows=int(state.get("max_rows") or _MAX_ROWS),
        joins_seeds=state.get("joins_seeds") is True,
        warm=tuple(warm),
        budget_bytes=state.get("budget_bytes"),
        model_bytes=bytes_of if isinstance(bytes_of, dict) else {},
    )


def _job(found: Mapping[str, Any], measurements: Measurements, now: float, live: Collection[str]) -> QueuedJob:
    work, cost = read_object(found.get("work")), measurements.cost_of(found.get("work"))
    deadline_at, worker = _number(found.get("deadline_at")), found.get("worker")
    ready_in_seconds, unknown = 0.0, ""
    if worker is not None and worker not in live:
        worker, ready_in_seconds = None, max(0.0, float(found["lease_until"]) - now)
    preparing = read_object(found.get("preparing"))
    if worker is None and preparing:
        ready_in_seconds, unknown = _preparation(preparing)
    fraction = _number(read_object(found.get("progress")).get("fraction")) or 0.0
    return QueuedJob(
        id=found["id"],
        owner=found.get("owner") or "",
        tier=TIERS.index(found["tier"]) if found.get("tier") in TIERS else 1,
        model=str(work.get("model", "")),
        cost=cost,
        joins=str(work.get("joins") or ""),
        seeded=work.get("seeded") is True,
        steps_done=0.0 if worker is None else cost.steps * min(1.0, max(0.0, fraction)),
        age_seconds=max(0.0, now - (_number(found.get("created_at")) or now)),
        deadline_in_seconds=None if deadline_at is None else deadline_at - now,
        worker=worker,
        ready_in_seconds=ready_in_seconds,
        unknown=unknown,
        alone=bool(found.get("solo")),
    )


def _held(job: QueuedJob, paused: Collection[str]) -> QueuedJob:
    """A waiting job, of which nobody knows when it begins while its model is paused."""
    if "*" in paused:
        return replace(job, unknown="the operator has paused all models")
    return replace(job, unknown=f"the operator has paused {job.model}") if job.model in paused else job


def _number(value: object) -> float | None:
    """A number of a record; None where another release has written something else, or nothing."""
    try:
        return float(value) if isinstance(value, str | int | float) else None
    except ValueError:
        return None


def _preparation(found: Mapping[str, Any]) -> tuple[float, str]:
    """Seconds until the files are there that a job waits for; and why that is unknown, where it is."""
    seconds = _number(found.get("retry_seconds" if found.get("state") == "retrying" else "remaining_seconds"))
    if seconds is not None:
        return seconds, ""
    return 0.0, f"{found.get('name', 'a file')} is being prepared, and how long that takes is not known yet"
