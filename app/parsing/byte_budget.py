"""A budget of bytes that all requests of one process share, such as the memory for bodies. Knows no request.

Bytes are reserved as they arrive, not as they are announced: an announcement costs a client nothing. Used from one
event loop only, so it needs no lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Busy

#: The first bytes of each reservation are free: small requests are served while large ones fill the budget.
FREE_BYTES = 64 * 2**10


class ByteBudget:
    """A number of bytes, of which one owner may have at most half, but always enough for one whole body."""

    def __init__(self, limit_bytes: int, largest_bytes: int) -> None:
        """`largest_bytes`: of one body."""
        self._limit_bytes = max(limit_bytes, largest_bytes)
        self._share_bytes = max(limit_bytes // 2, largest_bytes)
        self._by_owner: Counter[str] = Counter()
        self._total = 0

    @property
    def reserved_bytes(self) -> int:
        """Bytes that are reserved now, without the free ones."""
        return self._total

    @contextmanager
    def reserve(self, owner: str) -> Iterator[Reservation]:
        """An empty reservation of the owner, which is released at the end."""
        reservation = Reservation(self, owner)
        try:
            yield reservation
        finally:
            reservation.release()

    def _change(self, owner: str, difference: int) -> None:
        """Add to an owner's bytes, or take from them; raises Busy if they do not fit."""
        if difference > 0 and self._total + difference > self._limit_bytes:
            raise Busy("the request bodies in progress fill the memory that the service has for them")
        if difference > 0 and self._by_owner[owner] + difference > self._share_bytes:
            raise Busy("your request bodies in progress fill your share of the memory for them")
        self._total += difference
        self._by_owner[owner] += difference
        if not self._by_owner[owner]:
            del self._by_owner[owner]


class Reservation:
    """The bytes of one request."""

    def __init__(self, budget: ByteBudget, owner: str) -> None:
        self._budget = budget
        self._owner = owner
        self._size = self._counted = 0

    def add(self, size: int) -> None:
        """Reserve this many bytes more.

        Raises:
            Busy: the budget, or the owner's share of it, is spent.
        """
        self._size += size
        counted = max(0, self._size - FREE_BYTES)
        self._budget._change(self._owner, counted - self._counted)
        self._counted = counted

    def release(self) -> None:
        """Give everything back."""
        self._budget._change(self._owner, -self._counted)
        self._size = self._counted = 0
