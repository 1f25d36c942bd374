"""Checks costly files one at a time; the others wait in the event loop, not in threads.

Checking one holds the interpreter's lock. In forty threads at once it would leave the event loop, and so every
other call, a fortieth of the time. Knows no kind of file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from app.errors import Busy

T = TypeVar("T")

#: Files that may be in the queue, and those of one owner.
_MAX_FILES, _MAX_OWN_FILES = 16, 8


class FileChecks:
    """The queue of one process. Used from one event loop only, so it needs no lock."""

    def __init__(self) -> None:
        self._turn = CapacityLimiter(1)
        self._by_owner: Counter[str] = Counter()

    async def run(self, owner: str, check: Callable[[], T]) -> T:
        """Run a call in a thread, after those that came before.

        Raises:
            Busy: too many files are in the queue, of all owners or of this one.
        """
        if self._by_owner.total() >= _MAX_FILES:
            raise Busy("the service is already checking its maximum number of adapter files")
        if self._by_owner[owner] >= _MAX_OWN_FILES:
            raise Busy(f"{_MAX_OWN_FILES} of your adapter files are being checked, the maximum for one owner")
        self._by_owner[owner] += 1
        try:
            return await to_thread.run_sync(check, limiter=self._turn)
        finally:
            self._by_owner[owner] -= 1
            self._by_owner += Counter()  # drops owners without files
