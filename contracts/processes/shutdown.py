"""SIGTERM and SIGINT: the first tells a process to finish its work, a second to stop at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType


class Shutdown:
    """Handler of the stop signals, with the time left after the first."""

    def __init__(self, drain_seconds: float, on_request: Callable[[], object]) -> None:
        """`drain_seconds`: time to finish the running work; `on_request` must be safe in a signal handler."""
        self._drain_seconds = drain_seconds
        self._on_request = on_request
        self._deadline: float | None = None

    @property
    def requested(self) -> bool:
        """Whether to stop taking work."""
        return self._deadline is not None

    @property
    def overdue(self) -> bool:
        """Whether to stop at once: a second signal has come, or the drain time is over."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def overdue_seconds(self) -> float:
        """Time since the shutdown became overdue; 0 before that."""
        return 0.0 if self._deadline is None else max(0.0, time.monotonic() - self._deadline)

    def request(self) -> None:
        """Ask to stop, as the first signal does."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._drain_seconds

    def install(self, *, exits: bool = False) -> None:
        """Handle SIGTERM and SIGINT; in the main thread only.

        Args:
            exits: until the next `install`, a signal ends the process with status 0: it has no work to finish yet.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._exit if exits else self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        now = time.monotonic()
        # A third signal grants no time that the second has ended.
        self._deadline = now + self._drain_seconds if self._deadline is None else min(now, self._deadline)
        self._on_request()

    def _exit(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.request()  # should what runs now swallow the exception
        raise SystemExit(0)
