"""Which of its jobs a worker serves next, and for how long, as the policy of its step engine would. Pure.

An approximation of `worker/engine/policy.py` in intervals instead of steps: whom the policy serves changes mostly
when a job ends or begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from contracts.forecast.serving_order import DEADLINE_MARGIN, MOVES_TO_KEEP, Joining, is_at_risk, order_key
from contracts.forecast.snapshot import QueuedJob, WorkerState
from contracts.memory.seconds import move_seconds

#: Groups beside the first that get a part of the time.
_MAX_OTHERS = 3
#: Another model than the one served gets a part of the time, once it has waited this long.
_OTHER_MODEL_SECONDS, _OTHER_MODEL_SHARE = 2.0, 0.2
#: Whom the policy serves is looked at again after this part of the remaining seconds, since jobs age meanwhile.
_INTERVAL_SHARE = 0.5


@dataclass(eq=False, slots=True)
class JobInFlight:
    """A job that a worker has begun.

    Attributes:
        own_seconds: to go, of what it shares with no other job.
        steps: to go.
    """

    job: QueuedJob
    own_seconds: float
    steps: float

    @classmethod
    def of(cls, job: QueuedJob) -> JobInFlight:
        """A job in its present state. Half of its own stages are assumed to come before the steps."""
        steps = max(0.0, job.cost.steps - job.steps_done)
        return cls(job, job.cost.own_seconds * (0.5 if job.steps_done > 0 else 1.0), steps)

    @property
    def remaining_seconds(self) -> float:
        """Until its end, served alone."""
        return self.own_seconds + self.steps * self.job.cost.step_seconds

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left."""
        return self.own_seconds <= 1e-9 and self.steps <= 1e-9


@dataclass(eq=False)
class SimulatedWorker:
    """A worker, and how far its jobs are.

    Attributes:
        at: seconds since the snapshot, up to which its jobs were served.
        loads: model -> seconds that it takes to load.
    """

    state: WorkerState
    load_seconds: dict[str, float]
    lower_tier_share: float
    in_flight: list[JobInFlight] = field(default_factory=list)
    at: float = 0.0
    _served: list[tuple[Sequence[JobInFlight], float]] = field(default_factory=list)
    _leads: dict[str, float] = field(default_factory=dict)
    #: The model that is served, and until when it is served rather than another that would have to be moved in.
    _turn: str | None = None
    _kept_until: float = 0.0

    def __post_init__(self) -> None:
        self._warm = dict.fromkeys(self.state.warm)
        #: Reports are some seconds old: what has made a step is loaded.
        self._warm |= dict.fromkeys(one.job.model for one in self.in_flight if one.job.steps_done > 0)
        self._turn = next((one.job.model for one in self._order() if one.job.steps_done > 0), None)

    @property
    def warm(self) -> dict[str, None]:
        """Models that are loaded, the least recently used first."""
        return self._warm

    def has_room(self, tier: int) -> bool:
        """Whether it may take one more job of this tier."""
        if any(one.job.alone for one in self.in_flight):
            return False
        return self.state.max_jobs > sum(one.job.tier <= tier for one in self.in_flight)

    def begin(self, job: QueuedJob) -> None:
        """Take a job."""
        if all(one.job.owner != job.owner for one in self.in_flight):
            floor = min((self._leads.get(one.job.owner, 0.0) for one in self.in_flight), default=0.0)
            self._leads[job.owner] = max(self._leads.get(job.owner, 0.0), floor)
        self.in_flight.append(JobInFlight.of(job))

    def plan_interval(self) -> float | None:
        """Decide who is served from now on; returns when to look again, in seconds since the snapshot.

        None where the worker has no jobs.
        """
        self._served = []
        order = self._order()
        if not order:
            return None
        first = self._first(order)
        self._enter(first)
        sharers = self._others(first, order)
        main_share = 1.0 - sum(share for _, share in sharers)
        self._served = [(self._group(first, order), main_share), *sharers]
        interval_seconds = min(self._longest(group, share) for group, share in self._served)
        return self.at + min(interval_seconds, self._seconds_to_risk())

    def serve_until(self, until: float) -> list[QueuedJob]:
        """Serve the jobs that `plan_interval` has chosen; returns those that have ended."""
        seconds = until - self.at
        for group, share in self._served:
            self._serve(group, seconds * share)
        self.at = until
        ended = [one.job for one in self.in_flight if one.has_ended]
        if ended:
            self.in_flight = [one for one in self.in_flight if not one.has_ended]
        return ended

    # -- order ----------------------------------------------------------------------------------------

    def _order(self) -> list[JobInFlight]:
        """Jobs that can be served, the most urgent first."""
        if len(self.in_flight) < 2:
            return list(self.in_flight)
        placed = [one for one in self.in_flight if one.job.model in self._warm]
        can_run = self.in_flight
        if len(placed) < len(can_run):
            can_run = [one for one in can_run if one.job.model in self._warm or self._fits(one.job.model, placed)]
        lead_floor = min(self._leads.get(one.job.owner, 0.0) for one in can_run)
        at_risk = self._at_risk(can_run)

        def key(one: JobInFlight) -> tuple[int, bool, float]:
            lead = self._leads.get(one.job.owner, 0.0) - lead_floor
            seconds = order_key(one.remaining_seconds, one.job.age_seconds + self.at, lead)
            return one.job.tier, one.job.id not in at_risk, seconds

        return sorted(can_run, key=key)

    def _first(self, order: Sequence[JobInFlight]) -> JobInFlight:
        """The most urgent job; soon after weights were moved in, rather one of its tier that needs these."""
        best = order[0]
        if self.at >= self._kept_until:
            return best
        return next((one for one in order if (one.job.tier, one.job.model) == (best.job.tier, self._turn)), best)

    def _at_risk(self, jobs: Sequence[JobInFlight]) -> set[str]:
        found, busy_seconds = set(), 0.0
        for left, one in sorted(self._dated(jobs), key=lambda pair: (pair[1].job.tier, pair[0])):
            needed = one.remaining_seconds
            if is_at_risk(left, needed, busy_seconds):
                found.add(one.job.id)
                busy_seconds += needed
        return found

    def _dated(self, jobs: Sequence[JobInFlight]) -> list[tuple[float, JobInFlight]]:
        """Jobs with deadlines, and the seconds until these."""
        found = ((one.job.deadline_in_seconds, one) for one in jobs)
        return [(left - self.at, one) for left, one in found if left is not None]

    def _seconds_to_risk(self) -> float:
        """Until the next deadline comes near that is not near yet."""
        waits = (left - DEADLINE_MARGIN * one.remaining_seconds for left, one in self._dated(self.in_flight))
        return min((max(0.1, seconds) for seconds in waits if seconds >= 0), default=float("inf"))

    def _others(
        self, first: JobInFlight, order: Sequence[JobInFlight]
    ) -> list[tuple[Sequence[JobInFlight], float]]:
        """Who gets a small part of the time beside the first: lower tiers, and the other models of its tier."""
        found: list[tuple[Sequence[JobInFlight], float]] = []
        taken = {(first.job.tier, first.job.model)}
        for one in order[1:]:
            is_lower = one.job.tier > first.job.tier
            key = (one.job.tier, "" if is_lower else one.job.model)
            if key in taken or not (is_lower or first.remaining_seconds > _OTHER_MODEL_SECONDS):
                continue
            taken.add(key)
            self._load(one)
            share = self.lower_tier_share if is_lower else _OTHER_MODEL_SHARE
            found.append((self._group(one, order), share))
            if len(found) == _MAX_OTHERS:
                break
        return found

    def _group(self, first: JobInFlight, order: Sequence[JobInFlight]) -> list[JobInFlight]:
        """The first, and all whose calls are joined with its own."""
        joins = self._joins(first)
        if not joins or not first.steps:
            return [first]
        group, images, cost = [first], first.job.cost.images, first.job.cost
        joining = Joining(len(order), cost.step_seconds)
        for ahead, one in enumerate((one for one in order if one is not first), start=1):
            added = one.job.cost.images
            if self._joins(one) != joins or not one.steps:
                continue
            if (images + added) * cost.image_rows > self.state.max_rows:
                continue
            is_less_urgent = one.job.tier > order[0].job.tier
            if joining.admits(ahead, cost.call_seconds, cost.image_seconds * added, is_less_urgent=is_less_urgent):
                group.append(one)
                images += added
            elif joining.is_closed:
                break
        return group

    def _joins(self, one: JobInFlight) -> str:
        """What is equal for jobs whose calls are joined here; empty: it makes its calls alone."""
        return "" if one.job.seeded and not self.state.joins_seeds else one.job.joins

    # -- serving --------------------------------------------------------------------------------------

    def _longest(self, group: Sequence[JobInFlight], share: float) -> float:
        """Until the first of a group ends, or the order should be looked at again."""
        opening = sum(one.own_seconds for one in group)
        if opening > 1e-9:
            return opening / share
        step_seconds = _step_seconds(group)
        first_end = min(one.steps for one in group) * step_seconds / share
        is_alone = len(self.in_flight) == len(group)
        return first_end if is_alone else min(first_end, max(0.1, first_end * _INTERVAL_SHARE))

    def _serve(self, group: Sequence[JobInFlight], seconds: float) -> None:
        for one in group:
            spent = min(one.own_seconds, seconds)
            self._charge(one, spent)
            one.own_seconds, seconds = one.own_seconds - spent, seconds - spent
        step_seconds = _step_seconds(group)
        steps = max(0.0, seconds) / step_seconds if step_seconds > 0 else float("inf")
        for one in group:
            done = min(one.steps, steps)
            one.steps = one.steps - done if one.steps - done > 1e-6 else 0.0
            self._charge(one, done * step_seconds / len(group))

    def _charge(self, one: JobInFlight, seconds: float) -> None:
        owner = one.job.owner
        self._leads[owner] = self._leads.get(owner, 0.0) + seconds

    # -- models ---------------------------------------------------------------------------------------

    def _enter(self, one: JobInFlight) -> None:
        """Have a job's model on the device: loaded, or moved in where it has no room beside the one before."""
        model = one.job.model
        if model in self._warm and model != self._turn and self._turn is not None:
            sizes, budget = self.state.model_bytes, self.state.budget_bytes
            together = {model, self._turn, *(other.job.model for other in self.in_flight)}
            fits = budget is None or sum(sizes.get(name, 0) for name in together) <= budget
            seconds = 0.0 if fits else move_seconds(sizes.get(model, 0))
            one.own_seconds += seconds
            self._kept_until = self.at + (1 + MOVES_TO_KEEP) * seconds
        self._turn = model
        self._load(one)

    def _load(self, one: JobInFlight) -> None:
        """Have a job's model loaded before its next step, if it is not."""
        model = one.job.model
        if model not in self._warm:
            one.own_seconds += self.load_seconds.get(model, 0.0)
            in_use = {other.job.model for other in self.in_flight}
            for other in list(self._warm):
                if self._fits(model, ()):
                    break
                if other not in in_use:
                    del self._warm[other]
        self._warm.pop(model, None)
        self._warm[model] = None

    def _fits(self, model: str, placed: Sequence[JobInFlight]) -> bool:
        """Whether a model has room beside those that jobs use; without jobs, beside all that are loaded."""
        sizes, budget = self.state.model_bytes, self.state.budget_bytes
        if budget is None or model not in sizes:
            return True
        others = {one.job.model for one in placed} if placed else set(self._warm)
        return not others or sum(sizes.get(other, 0) for other in others | {model}) <= budget


def _step_seconds(group: Sequence[JobInFlight]) -> float:
    """Of one call that all of a group share."""
    cost = group[0].job.cost
    return cost.call_seconds + cost.image_seconds * sum(one.job.cost.images for one in group)
