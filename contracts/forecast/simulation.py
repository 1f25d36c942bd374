"""Claims and ends of all jobs of a snapshot, one after another, as `claim.lua` and workers would choose. Pure."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from contracts.forecast.snapshot import TIERS, QueuedJob, Snapshot, WorkerState
from contracts.forecast.workers import JobInFlight, SimulatedWorker

#: Intervals that are simulated at most; what has not ended then has no estimate.
MAX_INTERVALS = 5000


@dataclass(frozen=True)
class Expected:
    """Expected course of one job, in seconds since the snapshot.

    Attributes:
        ahead: waiting jobs that are claimed before it; 0 for a running one.
        claim_seconds: until it is claimed; 0 for a running one.
        end_seconds: until its end.
        spread: relative uncertainty of the end; None: it rests on jobs of which nothing was measured.
    """

    ahead: int
    claim_seconds: float
    end_seconds: float
    spread: float | None


def simulate(snapshot: Snapshot, until: str | None = None) -> dict[str, Expected]:
    """Simulate the workers until all jobs have ended, or the job with the id `until`; returns what was found.

    Left out are jobs of which nobody can say when they begin, and tiers below one that was not read to its end.
    While no worker claims, those that wait are ordered as one worker would claim them, one after the other, and
    have no spread.
    """
    simulation = _Simulation(snapshot)
    simulation.run(until)
    below = next((tier for tier in range(len(TIERS)) if not snapshot.has_read_all(tier)), len(TIERS))
    unread = {job.id for queue in snapshot.queues if queue.tier > below for job in queue.jobs}
    return {id: found for id, found in simulation.expected.items() if id not in unread}


class _Backlog:
    """The waiting jobs, and whose turn it is."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._accounts = [dict(accounts) for accounts in snapshot.accounts]
        self._floors, self._owed = list(snapshot.floors), list(snapshot.owed)
        self._owed_share = snapshot.lower_tier_share / (1 - snapshot.lower_tier_share)
        self._overdue_seconds = snapshot.overdue_seconds
        #: Job that must run alone -> the worker that claims nothing until its own jobs have ended.
        self._awaited_by: dict[str, SimulatedWorker] = {}
        #: Tier -> (owner, model) -> its jobs, the oldest first.
        self._queues: list[dict[tuple[str, str], deque[QueuedJob]]] = [{} for _ in TIERS]
        jobs = [job for queue in snapshot.queues for job in queue.jobs if not job.unknown]
        for job in sorted(jobs, key=lambda one: -one.age_seconds):
            self._queues[job.tier].setdefault((job.owner, job.model), deque()).append(job)
        self.ready_times = sorted({job.ready_in_seconds for job in jobs if job.ready_in_seconds > 0})

    def take(self, worker: SimulatedWorker, at: float) -> QueuedJob | None:
        """Take the next job out for a worker; None if there is none for it."""
        for tier in range(len(TIERS)):
            if not worker.has_room(tier):
                continue
            job = self._next(tier, worker, at)
            if job is None:
                continue
            if job.alone and worker.in_flight:
                self._awaited_by[job.id] = worker
                return None
            for lower in range(tier + 1, len(TIERS)):
                job = self._overtaking(lower, job, worker, at) or job
            self._queues[job.tier][job.owner, job.model].remove(job)
            self._charge(job)
            return job
        return None

    def _next(self, tier: int, worker: SimulatedWorker, at: float) -> QueuedJob | None:
        """The next job by accounts, then age; the first that is overdue or warm goes before others."""
        firsts = (self._first(queue, worker) for queue in self._queues[tier].values())
        heads = [job for job in firsts if job is not None and job.ready_in_seconds <= at]
        heads.sort(key=lambda job: (self._account(tier, job.owner), -job.age_seconds))
        for job in heads:
            if job.model in worker.warm or job.age_seconds + at > self._overdue_seconds:
                return job
        return heads[0] if heads else None

    def _first(self, queue: deque[QueuedJob], worker: SimulatedWorker) -> QueuedJob | None:
        """The first job of a queue for which no other worker makes room."""
        if not worker.in_flight:
            return queue[0] if queue else None
        return next((job for job in queue if self._awaited_by.get(job.id, worker) is worker), None)

    def _overtaking(self, lower: int, job: QueuedJob, worker: SimulatedWorker, at: float) -> QueuedJob | None:
        """The job of a lower tier that goes first: the tier is owed its seconds, and its owner has used less."""
        if self._owed[lower] <= 0 or not worker.has_room(lower):
            return None
        other = self._next(lower, worker, at)
        if other is None or other.cost.mean_seconds > self._owed[lower] or (other.alone and worker.in_flight):
            return None
        has_used_less = self._account(lower, other.owner) < self._account(job.tier, job.owner)
        return other if has_used_less else None

    def _account(self, tier: int, owner: str) -> float:
        return self._accounts[tier].get(owner, self._floors[tier])

    def _charge(self, job: QueuedJob) -> None:
        seconds = job.cost.mean_seconds
        for tier in range(len(TIERS)):
            self._accounts[tier][job.owner] = self._account(tier, job.owner) + seconds
            if tier > job.tier:
                waits = any(self._queues[tier].values())
                self._owed[tier] = self._owed[tier] + seconds * self._owed_share if waits else 0.0
        self._owed[job.tier] = max(0.0, self._owed[job.tier] - seconds)


@dataclass
class _Simulation:
    snapshot: Snapshot
    expected: dict[str, Expected] = field(default_factory=dict)

    def __post_init__(self) -> None:
        snapshot = self.snapshot
        models = {job.model for queue in snapshot.queues for job in queue.jobs}
        models |= {job.model for job in snapshot.running}
        loads = {model: snapshot.measurements.load_seconds(model) for model in models}
        self._backlog = _Backlog(snapshot)
        self._workers = [
            SimulatedWorker(
                state,
                loads,
                snapshot.lower_tier_share,
                [JobInFlight.of(job) for job in snapshot.running if job.worker == state.id],
            )
            for state in snapshot.workers
        ]
        self._has_worker = any(state.claims for state in snapshot.workers)
        if not self._has_worker:
            nobody = WorkerState("", max_jobs=1)
            self._workers.append(SimulatedWorker(nobody, loads, snapshot.lower_tier_share))
        self._claims: dict[str, tuple[int, float]] = {}
        #: Seconds that were served, those of them that are uncertain, and whether all were measured.
        self._seconds, self._uncertain, self._measured = 0.0, 0.0, True
        #: (time, number, worker): when a worker's next interval ends. An older entry of the same worker is void.
        self._agenda: list[tuple[float, int, int]] = []
        self._number = 0
        self._current: dict[int, int] = {}

    def run(self, until: str | None) -> None:
        # Workers without jobs come first, then those with the fewest.
        self._claim(range(len(self._workers)), 0.0)
        for index in range(len(self._workers)):
            self._plan(index)
        for ready_at in self._backlog.ready_times:
            self._push(ready_at, -1)
        for _ in range(MAX_INTERVALS):
            if not self._agenda or until in self.expected:
                return
            at, number, index = heapq.heappop(self._agenda)
            if index < 0:
                self._advance_all(at)
            elif self._current.get(index) == number:
                self._advance(index, at)

    def _advance(self, index: int, at: float) -> None:
        worker = self._workers[index]
        for job in worker.serve_until(at):
            self._note_end(job, at)
        self._claim([index], at)
        self._plan(index)

    def _advance_all(self, at: float) -> None:
        """Files are there, or a lease has expired: any worker may claim now."""
        for worker in self._workers:
            for job in worker.serve_until(at):
                self._note_end(job, at)
            worker.at = at
        self._claim(range(len(self._workers)), at)
        for index in range(len(self._workers)):
            self._plan(index)

    def _claim(self, indexes: Iterable[int], at: float) -> None:
        """Have workers claim, one job each in turn, those with the fewest jobs first, until none takes any."""
        claiming = [self._workers[index] for index in indexes if self._workers[index].state.claims]
        while claiming:
            worker = min(claiming, key=lambda one: len(one.in_flight))
            worker.at = at
            job = self._backlog.take(worker, at)
            if job is None:
                claiming.remove(worker)
                continue
            self._claims[job.id] = (len(self._claims), at)
            worker.begin(job)

    def _plan(self, index: int) -> None:
        at = self._workers[index].plan_interval()
        if at is not None:
            self._push(at, index)

    def _push(self, at: float, index: int) -> None:
        self._number += 1
        self._current[index] = self._number
        heapq.heappush(self._agenda, (at, self._number, index))

    def _note_end(self, job: QueuedJob, at: float) -> None:
        ahead, claimed_at = self._claims.get(job.id, (0, 0.0))
        seconds, spread = max(job.cost.alone_seconds, 1e-6), job.cost.spread
        self._measured = self._measured and spread is not None
        self._seconds += seconds
        self._uncertain += seconds * (spread or 0.0)
        is_known = self._measured and (self._has_worker or job.id not in self._claims)
        mean_spread = self._uncertain / self._seconds if is_known else None
        self.expected[job.id] = Expected(ahead, claimed_at, at, mean_spread)
