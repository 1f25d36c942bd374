"""What to ask the queue for next: how many more jobs, and no swapping of models back and forth.

With an age bound alone, every job is overdue under overload, and every claim would change the model. So a model
that has just been loaded stays for a minimum time, however long other jobs have waited.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Literal

from contracts.leases.criteria import ClaimCriteria

#: Tiers of priority, the highest first.
TIERS = ("high", "normal", "low", "training")
_TRAINING = TIERS.index("training")
#: Whether a worker trains: `also` beside images, `never`, or `only`.
Training = Literal["also", "never", "only"]


class ClaimPolicy:
    """The minimum residency of a model, and the room for more jobs.

    Attributes:
        minimum_seconds: that a model stays, however long jobs of others have waited.
        max_jobs: in flight of one tier and those above it: a high job finds room beside many low ones.
    """

    def __init__(self, minimum_seconds: float, max_jobs: int, training: Training = "also") -> None:
        self.minimum_seconds = minimum_seconds
        self.max_jobs = max_jobs
        self._training = training
        self._model: str | None = None
        self._since = 0.0

    def enter(self, model: str) -> None:
        """Note that this model runs now."""
        if model != self._model:
            self._model, self._since = model, time.monotonic()

    @property
    def settled(self) -> bool:
        """Whether the current model has had its minimum time, so that another may replace it."""
        return self._model is None or time.monotonic() - self._since >= self.minimum_seconds

    def room(self, tiers: Sequence[int]) -> dict[str, int]:
        """Tier -> how many more of its jobs may be claimed beside those of these tiers (0: high).

        One training at a time: a second one would take memory, and make neither faster.
        """
        room = {
            name: 0 if self._training == "only" else max(0, self.max_jobs - sum(other <= tier for other in tiers))
            for tier, name in enumerate(TIERS[:_TRAINING])
        }
        may_train = self._training != "never" and _TRAINING not in tiers
        return {**room, TIERS[_TRAINING]: int(may_train)}

    def criteria(
        self,
        warm: Collection[str],
        tiers: Sequence[int],
        ready: Collection[str] | None = None,
        deferred: Collection[str] = (),
    ) -> ClaimCriteria:
        """The criteria of the next claim.

        Args:
            tiers: of the jobs in flight.
            ready, deferred: as in `ClaimCriteria`.
        """
        return ClaimCriteria(
            warm=tuple(warm),
            settled=self.settled,
            ready=ready,
            deferred=deferred,
            room=self.room(tiers),
            in_flight=len(tiers),
        )
