"""How long a call of n rows takes, learned while running, per model and shape. Knows no torch and no clock."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

#: Cost of a further row, relative to a call of one row, until it is measured: low, so that joining is tried.
UNMEASURED_SLOPE = 0.5
#: Seconds of a call of one row where nothing has been measured at all.
UNMEASURED_SECONDS = 0.1
#: Each size counts with the lower quartile of this many last calls: any disturbance makes a call slower.
_RECENT_CALLS = 7
#: Calls after which the measured time of a size is trusted.
_CALLS_TO_BELIEVE = 3
#: A size that did not occur among so many calls of its kind is forgotten, so that it is tried again: costs change.
_CALLS_TO_FORGET = 500
#: The same, of a size that took longer than calls of the present size would for the same rows: it was measured
#: while the machine was slow, and would else never look worth a try.
_CALLS_TO_DOUBT = 64
#: Sizes that are remembered of a kind, and kinds; beyond these the least recently called is forgotten.
_MAX_SIZES = 64
_MAX_KINDS = 1024


@dataclass
class _Size:
    """The calls of one kind that had the same number of rows."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_CALLS))
    typical_seconds: float = 0.0
    last_call: int = 0


class _Kind:
    """The calls of one kind, and a straight line through the seconds of their sizes."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[int, _Size] = OrderedDict()
        self._calls = 0
        self._rows: list[int] = []
        self._seconds: list[float] = []
        self.first_row_seconds = UNMEASURED_SECONDS
        self.slope = UNMEASURED_SLOPE

    def learn(self, rows: int, seconds: float) -> None:
        self._calls += 1
        size = self._sizes.setdefault(rows, _Size())
        size.seconds.append(seconds)
        size.typical_seconds = sorted(size.seconds)[(len(size.seconds) - 1) // 4]
        size.last_call = self._calls
        self._sizes.move_to_end(rows)
        oldest_rows, oldest = next(iter(self._sizes.items()))
        is_doubtful = oldest.typical_seconds > size.typical_seconds * max(1.0, oldest_rows / rows)
        kept_calls = _CALLS_TO_DOUBT if is_doubtful else _CALLS_TO_FORGET
        if self._calls - oldest.last_call > kept_calls or len(self._sizes) > _MAX_SIZES:
            self._sizes.popitem(last=False)
        self._fit()

    def _fit(self) -> None:
        """Least squares; through a single size, with the slope that is assumed until it is measured."""
        believed = {rows: size for rows, size in self._sizes.items() if len(size.seconds) >= _CALLS_TO_BELIEVE}
        points = sorted((rows, size.typical_seconds) for rows, size in (believed or self._sizes).items())
        self._rows, self._seconds = [rows for rows, _ in points], [seconds for _, seconds in points]
        mean_rows, mean_seconds = statistics.fmean(self._rows), statistics.fmean(self._seconds)
        if len(points) == 1:
            self.slope = UNMEASURED_SLOPE
            self.first_row_seconds = mean_seconds / (1 + self.slope * (mean_rows - 1))
            return
        spread = sum((rows - mean_rows) ** 2 for rows in self._rows)
        further = sum((rows - mean_rows) * (seconds - mean_seconds) for rows, seconds in points) / spread
        # Despite noise in the measurements: more rows never cost less, and the first row is not free.
        first = mean_seconds - max(0.0, further) * (mean_rows - 1)
        self.first_row_seconds = max(first, mean_seconds / mean_rows / 2)
        self.slope = (mean_seconds / self.first_row_seconds - 1) / (mean_rows - 1)

    def predict(self, rows: int) -> float:
        """What was measured; the line between two sizes; beyond all of them, parallel to the line through all."""
        place = bisect_left(self._rows, rows)
        if place == len(self._rows) or (place == 0 and self._rows[0] != rows):
            nearest = min(place, len(self._rows) - 1)
            further = self.first_row_seconds * self.slope
            seconds = self._seconds[nearest] + further * (rows - self._rows[nearest])
            return max(seconds, self._seconds[nearest] * min(1.0, rows / self._rows[nearest]))
        if self._rows[place] == rows:
            return self._seconds[place]
        (left, right), (low, high) = self._rows[place - 1 : place + 1], self._seconds[place - 1 : place + 1]
        return low + (high - low) * (rows - left) / (right - left)


class CallCosts:
    """Predictor of the seconds of calls. Kinds are hashable; tuples whose first two items are equal are alike."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()

    def learn(self, kind: Hashable, rows: int, seconds: float) -> None:
        """Record the seconds of a call of this kind with this many rows."""
        if rows < 1 or not seconds > 0:
            return
        self._kinds.setdefault(kind, _Kind()).learn(rows, seconds)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > _MAX_KINDS:
            self._kinds.popitem(last=False)

    def seconds(self, kind: Hashable, rows: int) -> float:
        """Predicted seconds of a call of this kind with this many rows, 1 or more."""
        known = self._kinds.get(kind)
        if known is not None:
            return known.predict(rows)
        return self._guess(kind) * (1 + UNMEASURED_SLOPE * (rows - 1))

    def slope(self, kind: Hashable) -> float:
        """Cost of a further row, relative to a call of one row: at about 1, sharing a call saves nothing.

        Until calls of two sizes have been measured: `UNMEASURED_SLOPE`.
        """
        known = self._kinds.get(kind)
        return UNMEASURED_SLOPE if known is None else known.slope

    def _guess(self, kind: Hashable) -> float:
        """Seconds of one row of a kind that was not measured: the median of kinds like it, or else of all."""
        known = self._kinds
        start = kind[:2] if isinstance(kind, tuple) else None
        alike = [
            known[other].first_row_seconds for other in known if isinstance(other, tuple) and other[:2] == start
        ]
        alike = alike or [other.first_row_seconds for other in known.values()]
        return statistics.median(alike) if alike else UNMEASURED_SECONDS
