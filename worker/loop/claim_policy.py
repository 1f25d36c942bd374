"""What to ask the queue for next, so that models are not swapped back and forth.

With an age bound alone, every job is overdue under overload, and every claim would change the model. So a model
that has just been loaded stays for a minimum time, however long other jobs have waited.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from contracts.queue.leases import ClaimCriteria

#: Returns model -> pixels that one pipeline call may generate.
ModelPixels = Callable[[], Mapping[str, int]]


class ClaimPolicy:
    """The minimum residency of a model."""

    def __init__(self, minimum_seconds: float, model_pixels: ModelPixels = dict) -> None:
        """`model_pixels` returns model -> pixels that one pipeline call may generate, by the memory plan."""
        self._minimum_seconds = minimum_seconds
        self._model_pixels = model_pixels
        self._model: str | None = None
        self._since = 0.0

    def enter(self, model: str) -> None:
        """Note that this model runs now."""
        if model != self._model:
            self._model, self._since = model, time.monotonic()

    @property
    def settled(self) -> bool:
        """Whether the current model has had its minimum time, so that another may replace it."""
        return self._model is None or time.monotonic() - self._since >= self._minimum_seconds

    def criteria(
        self,
        warm: Collection[str],
        ready: Collection[str] | None = None,
        deferred: Collection[str] = (),
    ) -> ClaimCriteria:
        """The criteria of the next claim; `ready` and `deferred` as in `ClaimCriteria`."""
        return ClaimCriteria(
            warm=tuple(warm),
            settled=self.settled,
            ready=ready,
            deferred=deferred,
        )
