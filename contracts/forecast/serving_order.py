"""The order in which a worker serves its jobs, as the step engine follows it and forecasts assume it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: Remaining seconds count half when a job's age is so many times as long, a fifth at twice that age, and so on. It
#: keeps the latency of long jobs (p99) below twice that of first come, first served, at little cost to short ones.
_AGE_FACTOR = 10.0
#: Weight of each second that an owner was served beyond other waiting owners. With less than 1, the short jobs of
#: one owner go before a long job of another for longer, up to 4 times its length: better on average, still fair.
_LEAD_WEIGHT = 0.25
#: A deadline is about to be missed when it is closer than this multiple of the remaining seconds.
DEADLINE_MARGIN = 1.5
#: Remaining seconds are predicted: a deadline counts as missed only when less than this part of them is left.
_DEADLINE_TOLERANCE = 0.9
#: Future jobs also gain from work saved now, so joining pays a little more than the waiting jobs alone show.
_EXPECTED_JOBS = 3
#: A turn is kept for so many times the seconds of the move to it, so that moves take a fifth of the time at most.
MOVES_TO_KEEP = 4.0
#: Share of its seconds by which calls that are not urgent may delay an urgent call.
_URGENT_ALLOWANCE = 0.1


def order_key(remaining_seconds: float, age_seconds: float, owner_lead_seconds: float) -> float:
    """What jobs of a tier are ordered by, smallest first: aged remaining seconds, and their owner's lead.

    Args:
        owner_lead_seconds: that the owner has been served more than the least served owner.
    """
    remaining = max(remaining_seconds, 1e-6)
    age = age_seconds / (_AGE_FACTOR * remaining)
    return remaining / (1 + age * age) + _LEAD_WEIGHT * owner_lead_seconds


def is_at_risk(
    left_seconds: float, needed_seconds: float, busy_seconds: float, slack_seconds: float = 0.0
) -> bool:
    """Whether a deadline is about to be missed, and can still be met.

    Args:
        left_seconds: until the deadline.
        busy_seconds: of the jobs with deadlines that go before.
        slack_seconds: that the job may have to wait for a call that is being made.
    """
    is_close = left_seconds < DEADLINE_MARGIN * needed_seconds + slack_seconds
    return is_close and busy_seconds + _DEADLINE_TOLERANCE * needed_seconds <= left_seconds


@dataclass(slots=True)
class Joining:
    """The rule by which further calls share a call: asked for each of them in the order of service.

    Attributes:
        waiting: calls that wait, the first one included.
        call_seconds: of the first call alone.
        is_closed: whether less urgent calls delay an urgent one as much as they may, so that no more join.
    """

    waiting: int
    call_seconds: float
    is_closed: bool = False
    _delay_of_urgent: float = 0.0

    def admits(self, ahead: int, saved_seconds: float, delay_seconds: float, *, is_less_urgent: bool) -> bool:
        """Whether a call joins: what that saves for it and all behind it outweighs the delay of all ahead of it.

        Args:
            ahead: calls before it in the order.
            saved_seconds: of worker time, compared with a call of its own.
            delay_seconds: by which the shared call gets longer.
            is_less_urgent: than the most urgent call that waits.
        """
        if saved_seconds * (self.waiting - ahead + _EXPECTED_JOBS) < delay_seconds * ahead:
            return False
        if is_less_urgent:
            self._delay_of_urgent += max(0.0, delay_seconds)
            self.is_closed = self._delay_of_urgent > _URGENT_ALLOWANCE * self.call_seconds
        return not self.is_closed
