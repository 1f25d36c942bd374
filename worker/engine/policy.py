"""Which of the suspended calls is served next, and which others share it. Pure: knows no torch and no queue."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from contracts.forecast.serving_order import Joining, is_at_risk, order_key
from worker.engine.accounts import OwnerAccounts
from worker.engine.costs import CallCosts
from worker.engine.turns import Turns

#: Tier of trainings: below all images, to which they yield.
BACKGROUND_TIER = 3
#: How many times the seconds of loading or encoding a job must be saved by sharing calls with it afterwards.
_OPENING_GAIN = 2.0


@dataclass(frozen=True)
class Waiting:
    """The call that one job has suspended itself with.

    Attributes:
        job_id: of the job; each job has one call at most.
        tier: as of a `Job`.
        owner: of the job.
        remaining_seconds: predicted seconds of worker time until the job has ended, served alone.
        age_seconds: since the job was accepted.
        deadline_in_seconds: until its deadline; None: it has none.
        key: calls with equal keys can be made as one; None: the call is made alone (a named seed, encoding).
        additions: structure of what ControlNets add; calls can share only where it is equal or one has None.
        kind: what a cost is learned for: (model, entry point, shape of one row).
        rows: of the call, of all its images and guidance passes.
        images: that the rows stand for, for the memory plan.
        max_images: that one call may have by this job's memory plan.
        turn: what must be on the device: the model and its plan. A change of it may move weights.
        last_served: number of the call in which it was served last, 0 before the first.
        opens: of a wait for loading or encoding: the turn whose calls the job can share afterwards; else None.
        is_loading: whether it is the next slice of a model that is being loaded: there is one at most.
    """

    job_id: str
    tier: int
    owner: str
    remaining_seconds: float
    age_seconds: float
    deadline_in_seconds: float | None
    key: Hashable | None
    additions: Hashable | None
    kind: Hashable
    rows: int
    images: int
    max_images: int
    turn: Hashable
    last_served: int
    opens: Hashable | None = None
    is_loading: bool = False


class Policy(Protocol):
    """Rule that chooses what to call next, and is told what was called."""

    def choose(
        self, waiting: Sequence[Waiting], costs: CallCosts, max_rows: int, buckets: Sequence[int] | None = None
    ) -> list[Waiting]:
        """The calls to make together now, the most urgent one first; empty only where none waits.

        Args:
            waiting: all suspended calls, in any order.
            costs: what calls take.
            max_rows: of a call that several jobs share.
            buckets: numbers of rows that a shared call may have; None: any.
        """

    def served(self, calls: Sequence[Waiting], seconds: float) -> None:
        """Note how long the calls that `choose` returned took, made as one."""


class FifoPolicy:
    """First come, first served within a tier: each job alone, and to its end. For comparison."""

    def choose(
        self,
        waiting: Sequence[Waiting],
        costs: CallCosts,  # noqa: ARG002  # the interface's, as the next two
        max_rows: int,  # noqa: ARG002
        buckets: Sequence[int] | None = None,  # noqa: ARG002
    ) -> list[Waiting]:
        """The call of the job that has begun; before one has, of the oldest in the highest tier.

        One in the background is left for any other.
        """

        def place(call: Waiting) -> tuple[bool, bool, int, float]:
            return call.tier >= BACKGROUND_TIER, call.last_served == 0, call.tier, -call.age_seconds

        return sorted(waiting, key=place)[:1]

    def served(self, calls: Sequence[Waiting], seconds: float) -> None:
        """Nothing to remember."""


class StepPolicy:
    """Policy that chooses the first call in this order, and then those that share it.

    1. Tiers. A lower one gets a small share of the seconds while a higher one always has calls.
    2. Deadlines that are about to be missed and can still be met, the earliest first.
    3. Shortest remaining seconds, which count less the older a job is. To them is added a part of the seconds
       that its owner has been served more than the least served owner, so that owners take turns.

    The turn (the model on the device) changes at once for an urgent call, and else when the present turn has been
    worth its move and the other call is much shorter, or when another turn has waited too long. A call is joined
    where the work that this saves, for itself and all behind it, outweighs the delay of all ahead of it.

    A model that is being loaded and the calls that are as urgent take turns: a slice, a call.
    """

    def __init__(
        self, move_seconds: Callable[[Hashable], float] = lambda _: 0.0, lower_tier_share: float = 0.1
    ) -> None:
        """Start without a history.

        Args:
            move_seconds: what changing from the present turn to this one takes; 0: both are on the device.
            lower_tier_share: of the seconds, 0 to below 1, for a tier while a higher one always has calls.
        """
        self._owners = OwnerAccounts()
        self._turns = Turns(move_seconds)
        self._owed_share = lower_tier_share / (1 - lower_tier_share)
        #: Tier that waits -> seconds that it is owed for those that higher ones got.
        self._owed_seconds: dict[int, float] = {}
        #: Jobs that were served last.
        self._last: frozenset[str] = frozenset()

    def choose(
        self, waiting: Sequence[Waiting], costs: CallCosts, max_rows: int, buckets: Sequence[int] | None = None
    ) -> list[Waiting]:
        """See `Policy`. The caller makes these calls, then says so by `served`."""
        if not waiting:
            return []
        self._owners.enter({call.owner for call in waiting})
        self._turns.observe({call.turn for call in waiting})
        self._owed_seconds = {call.tier: self._owed_seconds.get(call.tier, 0.0) for call in waiting}
        at_risk = self._at_risk(waiting, costs)
        scores = {call.job_id: self._score(call) for call in waiting}
        every = sorted(waiting, key=lambda call: (*_urgency(call, at_risk), scores[call.job_id]))
        order = self._between_slices(every, at_risk)
        first = self._owed_call(order, costs) or self._first(order, at_risk, scores)
        self._turns.enter(first.turn)
        group = _join(first, order, at_risk, costs, max_rows)
        opener = _opener(group, order, costs, max_rows)
        if opener is not None:
            return [opener]
        return group if buckets is None else _fit(group, buckets)

    def served(self, calls: Sequence[Waiting], seconds: float) -> None:
        """See `Policy`. Its seconds are divided among the calls by their rows."""
        self._turns.served(seconds)
        self._last = frozenset(call.job_id for call in calls)
        rows = sum(call.rows for call in calls)
        for call in calls:
            share = seconds * call.rows / rows
            self._owners.charge(call.owner, share)
            self._owed_seconds[call.tier] = max(0.0, self._owed_seconds.get(call.tier, 0.0) - share)
        for tier in self._owed_seconds:
            if calls and tier > calls[0].tier:
                self._owed_seconds[tier] += seconds * self._owed_share

    def _between_slices(self, order: Sequence[Waiting], at_risk: set[str]) -> Sequence[Waiting]:
        """The calls that may be next: the slice of a load, or the others, where these are as urgent."""
        slices = [call for call in order if call.is_loading]
        others = [call for call in order if not call.is_loading]
        if not slices or not others or _urgency(slices[0], at_risk) != _urgency(others[0], at_risk):
            return order
        return others if slices[0].job_id in self._last else slices

    def _score(self, call: Waiting) -> float:
        """Less goes first: aged remaining seconds, and the lead of the owner."""
        return order_key(call.remaining_seconds, call.age_seconds, self._owners.lead(call.owner))

    def _at_risk(self, waiting: Sequence[Waiting], costs: CallCosts) -> set[str]:
        """Jobs whose deadlines are about to be missed, and can all be met if they go first.

        An owner who has been served more than the job needs has to wait for others, whatever deadlines it names.
        """
        dated = [call for call in waiting if call.deadline_in_seconds is not None]
        if not dated:
            return set()
        longest_call = max(costs.seconds(call.kind, call.rows) for call in waiting)
        found, busy_seconds = set(), 0.0
        for call in sorted(dated, key=lambda call: (call.tier, call.deadline_in_seconds)):
            left = call.deadline_in_seconds or 0.0
            needed = call.remaining_seconds + self._turns.move_seconds(call.turn)
            at_risk = is_at_risk(left, needed, busy_seconds, slack_seconds=2 * longest_call)
            if at_risk and self._owners.lead(call.owner) <= needed:
                found.add(call.job_id)
                busy_seconds += needed
        return found

    def _owed_call(self, order: Sequence[Waiting], costs: CallCosts) -> Waiting | None:
        """A call of a lower tier that is owed its seconds, and those of the moves there and back.

        The first call of a job of a higher tier does not wait for it.
        """
        if order[0].last_served == 0:
            return None
        for call in order:
            needed = costs.seconds(call.kind, call.rows) + 2 * self._turns.move_seconds(call.turn)
            if call.tier > order[0].tier and self._owed_seconds[call.tier] >= needed:
                return call
        return None

    def _first(self, order: Sequence[Waiting], at_risk: set[str], scores: dict[str, float]) -> Waiting:
        """The first in the order, unless it is better to keep the present turn, or time for another."""
        best = order[0]
        peers = [call for call in order if call.tier == best.tier]
        present = next((call for call in peers if call.turn == self._turns.current), None)
        if present is None or best.job_id in at_risk:
            return best
        if not self._turns.may_change:
            return present
        overdue = next((call for call in peers if self._turns.is_overdue(call.turn)), None)
        if overdue is not None:
            return overdue
        move_seconds = self._turns.move_seconds(best.turn)
        return best if scores[best.job_id] + 2 * move_seconds <= scores[present.job_id] else present


def _join(
    first: Waiting, order: Sequence[Waiting], at_risk: set[str], costs: CallCosts, max_rows: int
) -> list[Waiting]:
    """The first call, and all that can share it where sharing serves the order."""
    group, rows, images, max_images = [first], first.rows, first.images, first.max_images
    additions, most_urgent = first.additions, _urgency(order[0], at_risk)
    joining = Joining(len(order), costs.seconds(first.kind, first.rows))
    for ahead, call in enumerate((call for call in order if call is not first), start=1):
        if call.key is None or call.key != first.key or not _can_add(additions, call.additions):
            continue
        limit = min(max_images, call.max_images)
        if rows + call.rows > max_rows or images + call.images > limit:
            continue
        delay = costs.seconds(first.kind, rows + call.rows) - costs.seconds(first.kind, rows)
        saved = costs.seconds(call.kind, call.rows) - delay
        is_less_urgent = _urgency(call, at_risk) > most_urgent
        if joining.admits(ahead, saved, delay, is_less_urgent=is_less_urgent):
            group.append(call)
            rows, images, max_images = rows + call.rows, images + call.images, limit
            additions = additions if additions is not None else call.additions
        elif joining.is_closed:
            break
    return group


def _opener(group: Sequence[Waiting], order: Sequence[Waiting], costs: CallCosts, max_rows: int) -> Waiting | None:
    """A job to load or encode first, so that its calls can share those of the group; None: none is worth it.

    In the order of remaining seconds alone, a job would be loaded only when all before it have ended.
    """
    first, rows, images = group[0], sum(call.rows for call in group), sum(call.images for call in group)
    if first.key is None:
        return None
    rows_an_image = max(1, first.rows // first.images)
    limit = min(call.max_images for call in group)
    for call in order:
        added = call.images * rows_an_image
        if call.opens != first.turn or call.tier != first.tier:
            continue
        if rows + added > max_rows or images + call.images > limit:
            continue
        delay = costs.seconds(first.kind, rows + added) - costs.seconds(first.kind, rows)
        steps = min(call.remaining_seconds, first.remaining_seconds) / costs.seconds(first.kind, first.rows)
        saved = (costs.seconds(first.kind, added) - delay) * steps
        if saved > _OPENING_GAIN * costs.seconds(call.kind, call.rows):
            return call
    return None


def _urgency(call: Waiting, at_risk: set[str]) -> tuple[int, bool]:
    return call.tier, call.job_id not in at_risk


def _can_add(additions: Hashable | None, others: Hashable | None) -> bool:
    return additions is None or others is None or additions == others


def _fit(group: Sequence[Waiting], buckets: Sequence[int]) -> list[Waiting]:
    """The largest part of a group, with its first call, whose rows a bucket has; else the first call alone."""
    parts: dict[int, list[Waiting]] = {group[0].rows: [group[0]]}
    for call in group[1:]:
        for rows, part in list(parts.items()):
            parts.setdefault(rows + call.rows, [*part, call])
    return parts[max((rows for rows in parts if rows in buckets), default=group[0].rows)]
