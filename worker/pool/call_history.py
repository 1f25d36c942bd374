"""A worker's memory of its last calls. Knows models and plans by name."""

from __future__ import annotations

from collections import deque
from itertools import groupby

#: Calls that are remembered.
_CALLS = 64
#: Calls in a row that are expected of a kind that has not been seen.
_UNKNOWN_CALLS = 2.0


class CallHistory:
    """Kinds of calls, in order. A kind is a model and the plan that is best for the call alone."""

    def __init__(self) -> None:
        self._kinds: deque[tuple[str, str]] = deque(maxlen=_CALLS)

    def begin(self, model: str, plan: str) -> float:
        """A call of this kind begins; returns how many of them are expected in a row, this one included.

        At least as many as have just been seen in a row: a plan that saves a little in every call is then taken
        once the calls have paid for its moves. Else the mean of the earlier rows.
        """
        rows = [(kind, len(list(calls))) for kind, calls in groupby(self._kinds)]
        running = rows.pop()[1] if rows and rows[-1][0] == (model, plan) else 0
        earlier = [length for kind, length in rows if kind == (model, plan)]
        self._kinds.append((model, plan))
        mean = sum(earlier) / len(earlier) if earlier else 0.0
        return max(running + 1.0, mean) if running or earlier else _UNKNOWN_CALLS

    def has_model(self, model: str) -> bool:
        """Whether one of the remembered calls was this model's."""
        return any(kind[0] == model for kind in self._kinds)
