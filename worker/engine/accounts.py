"""The seconds served to each owner, so that owners take turns. Knows seconds and names only."""

from __future__ import annotations

from collections.abc import Collection

#: Owners without waiting calls whose accounts are remembered; beyond these the smallest accounts are forgotten.
_MAX_IDLE_OWNERS = 10_000


class OwnerAccounts:
    """Seconds served, by owner, as in the queue's scripts.

    An owner who begins to wait starts at least at the floor, the smallest account of the owners who waited last:
    idle time earns nothing. A larger account stays until the others have caught up.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._floor = 0.0

    def enter(self, owners: Collection[str]) -> None:
        """Note which owners have waiting calls now."""
        if self._waiting != set(owners):
            for owner in set(owners) - self._waiting:
                self._seconds[owner] = max(self._seconds.get(owner, 0.0), self._floor)
            self._waiting = set(owners)
            self._forget_idle()
        self._floor = min((self._seconds[owner] for owner in owners), default=self._floor)

    def lead(self, owner: str) -> float:
        """Seconds that a waiting owner was served beyond the least served waiting owner."""
        return self._seconds.get(owner, self._floor) - self._floor

    def charge(self, owner: str, seconds: float) -> None:
        """Add the seconds of an owner's calls."""
        self._seconds[owner] = self._seconds.get(owner, self._floor) + seconds

    def _forget_idle(self) -> None:
        """An idle owner at or below the floor would start there in any case."""
        idle = {owner: seconds for owner, seconds in self._seconds.items() if owner not in self._waiting}
        remembered = sorted(idle, key=lambda owner: idle[owner])[-_MAX_IDLE_OWNERS:]
        for owner in set(idle) - {owner for owner in remembered if idle[owner] > self._floor}:
            del self._seconds[owner]
