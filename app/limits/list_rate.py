"""How often each caller may list something at this process: lists cost more than other reads. Knows no route.

Not in Redis, as the rate of calls that write: what is protected is the time of this process, lists change nothing,
and they work while Redis is full. For the event loop only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from contracts.auth.api_keys import Allowance
from contracts.errors import RateExceeded

#: Seconds of unused calls that a caller may save up and make at once.
_BURST_SECONDS = 6.0
_MAX_CALLERS = 1000


class ListRate:
    """A token bucket for each caller."""

    def __init__(self, calls_per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = calls_per_minute
        self._per_second = calls_per_minute / 60
        self._burst = max(1.0, self._per_second * _BURST_SECONDS)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def count(self, caller: str) -> Allowance:
        """Count a call of a caller, which is an API key's id.

        Raises:
            RateExceeded: the limit is reached; the call does not count.
        """
        now = self._clock()
        left, counted_at = self._buckets.get(caller, (self._burst, now))
        left = min(self._burst, left + (now - counted_at) * self._per_second)
        if left < 1:
            raise RateExceeded(self._limit, math.ceil((1 - left) / self._per_second))
        if len(self._buckets) >= _MAX_CALLERS:
            self._forget_idle(now)
        self._buckets[caller] = (left - 1, now)
        return Allowance(self._limit, int(left - 1), (self._burst - left + 1) / self._per_second)

    def _forget_idle(self, now: float) -> None:
        """Drop the buckets that are full again, which are as good as none."""
        self._buckets = {
            caller: (left, at) for caller, (left, at) in self._buckets.items() if now - at < 2 * _BURST_SECONDS
        }
