"""How long calls take on the device, and how many of them the host may have queued.

CUDA computes behind the host, so a call's seconds are known only once the device has reached its end. Knows
nothing of what is called.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import torch

#: Calls that may wait on the device: one computes while the host prepares the next. With more, a job that comes
#: could not go first before they have ended.
_MAX_QUEUED = 2


class Event(Protocol):
    """A point in the device's work, as `torch.cuda.Event`."""

    def record(self) -> None:
        """Put the point behind all that is queued."""

    def query(self) -> bool:
        """Whether the device has reached it."""

    def synchronize(self) -> None:
        """Wait until it has."""

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds from here to another point."""


def _cuda_event() -> Event:
    return cast("Event", torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]


class CallTimer:
    """Timer of calls on one device, in the order in which they are made."""

    def __init__(self, device: torch.device, make_event: Callable[[], Event] = _cuda_event) -> None:
        self._is_async = device.type == "cuda"
        self._make_event = make_event
        self._started_at = 0.0
        self._start: Event | None = None
        self._queued: deque[tuple[Event, Event, Callable[[float], None]]] = deque()

    def start(self) -> None:
        """A call begins; waits while too many are queued on the device."""
        if not self._is_async:
            self._started_at = time.perf_counter()
            return
        while len(self._queued) >= _MAX_QUEUED:
            self._queued[0][1].synchronize()
            self.poll()
        self._start = self._make_event()
        self._start.record()

    def stop(self, tell: Callable[[float], None]) -> None:
        """The call has been made, or is queued; `tell` is given its seconds, now or by a later `poll`."""
        if not self._is_async:
            tell(time.perf_counter() - self._started_at)
            return
        if self._start is None:
            raise RuntimeError("a call ended that had not begun")
        end = self._make_event()
        end.record()
        self._queued.append((self._start, end, tell))

    def poll(self) -> None:
        """Tell the seconds of the calls that the device has ended."""
        while self._queued and self._queued[0][1].query():
            start, end, tell = self._queued.popleft()
            tell(start.elapsed_time(end) / 1000)
