"""Which model the device serves, and which others have waited too long. Its clock is the seconds served."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable

from contracts.forecast.serving_order import MOVES_TO_KEEP

#: How long a turn waits while others are served, in seconds, and in moves if these take longer.
_WAIT_SECONDS = 2.0
_WAIT_MOVES = 16.0
#: After such a wait, a turn is kept for this fraction of that time.
_KEPT_SHARE = 0.25


class Turns:
    """The present turn, and since when each other turn waits."""

    def __init__(self, move_seconds: Callable[[Hashable], float]) -> None:
        """`move_seconds` returns what changing from the present turn to another takes; 0: both are loaded."""
        self.current: Hashable | None = None
        self._move_seconds = move_seconds
        self._served_seconds = 0.0
        self._kept_until = 0.0
        self._waits_since: dict[Hashable, float] = {}

    def observe(self, waiting: Collection[Hashable]) -> None:
        """Note which turns have waiting calls."""
        self._waits_since = {
            turn: self._waits_since.get(turn, self._served_seconds) for turn in waiting if turn != self.current
        }

    def move_seconds(self, turn: Hashable) -> float:
        """What changing to this turn takes; 0 for the present one."""
        return 0.0 if turn == self.current else max(0.0, self._move_seconds(turn))

    @property
    def may_change(self) -> bool:
        """Whether the present turn has been kept long enough to be left for a call that is not urgent."""
        return self._served_seconds >= self._kept_until

    def is_overdue(self, turn: Hashable) -> bool:
        """Whether this turn has waited for the maximum time."""
        since = self._waits_since.get(turn, self._served_seconds)
        return self._served_seconds - since >= self._longest_wait(self.move_seconds(turn))

    def enter(self, turn: Hashable) -> None:
        """Change to this turn, if it is not the present one."""
        if turn == self.current:
            return
        move_seconds = self.move_seconds(turn)
        kept_seconds = MOVES_TO_KEEP * move_seconds
        if self.is_overdue(turn):
            kept_seconds = max(kept_seconds, _KEPT_SHARE * self._longest_wait(move_seconds))
        self._kept_until = self._served_seconds + kept_seconds
        if self.current is not None:
            self._waits_since[self.current] = self._served_seconds
        self._waits_since.pop(turn, None)
        self.current = turn

    def served(self, seconds: float) -> None:
        """Add the seconds of calls of the present turn."""
        self._served_seconds += seconds

    @staticmethod
    def _longest_wait(move_seconds: float) -> float:
        return max(_WAIT_SECONDS, _WAIT_MOVES * move_seconds)
