"""One preparation in progress: its state, the bytes received so far, and their rate."""

from __future__ import annotations

import time
from collections.abc import Callable

from contracts.jobs.preparations import FETCHING, READING, WAITING, Preparation

#: The time over which the speed of a download is taken, and the least time between two samples.
_SPEED_SECONDS, _SAMPLE_SECONDS = 10.0, 0.5


class RunningPreparation:
    """State of one preparation, written by the thread that prepares and read by others, one attribute at a time.

    Attributes:
        is_needed: whether any job needs it.
        has_advanced: whether bytes have come.
    """

    def __init__(
        self,
        name: str,
        *,
        is_download: bool = False,
        always_wanted: bool = False,
        count_bytes: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Build one that waits.

        Args:
            is_download: whether its files must be downloaded.
            always_wanted: whether it goes on even if no job needs it.
            count_bytes: called with the number of bytes that have come.
        """
        self.is_needed = True
        self.has_advanced = False
        self._name = name
        self._first_state = FETCHING if is_download else READING
        self._always_wanted = always_wanted
        self._count_bytes = count_bytes
        self._state = WAITING
        self._bytes: tuple[int, int] | None = None
        self._samples: tuple[tuple[float, int], ...] = ()

    def begin(self) -> None:
        """It is this one's turn."""
        self._state = self._first_state

    def fetched(self, done_bytes: int, total_bytes: int) -> None:
        """So many bytes of its files are on this machine."""
        before, now = self._bytes, time.monotonic()
        if before is not None and done_bytes > before[0]:
            self.has_advanced = True
            self._count_bytes(done_bytes - before[0])
        if before is None or done_bytes < before[0]:  # a damaged file, say, comes again
            self._samples = ((now, done_bytes),)
        elif now - self._samples[-1][0] >= _SAMPLE_SECONDS:
            recent = [sample for sample in self._samples if now - sample[0] <= _SPEED_SECONDS]
            self._samples = (*(recent or self._samples[-1:]), (now, done_bytes))
        self._bytes, self._state = (done_bytes, total_bytes), FETCHING

    def want(self, *, always: bool) -> None:
        """It is asked for once more."""
        self.is_needed = True
        self._always_wanted = self._always_wanted or always

    def is_wanted(self) -> bool:
        """Whether to go on."""
        return self.is_needed or self._always_wanted

    def reading(self) -> None:
        """All files are on this machine, and are read once."""
        self._state = READING

    def view(self) -> Preparation:
        """How it goes on."""
        known = self._bytes
        if self._state != FETCHING or known is None:
            return Preparation(name=self._name, state=self._state)
        done_bytes, total_bytes = known
        speed, remaining_seconds = self._bytes_per_second(done_bytes), None
        if speed:
            remaining_seconds = round(max(0, total_bytes - done_bytes) / speed, 1)
        return Preparation(
            name=self._name,
            state=FETCHING,
            bytes_done=done_bytes,
            bytes_total=total_bytes,
            bytes_per_second=speed,
            remaining_seconds=remaining_seconds,
        )

    def _bytes_per_second(self, done_bytes: int) -> float | None:
        """The speed until now, so that it falls while nothing comes; None before there is any."""
        began_at, began_bytes = self._samples[0]
        seconds = time.monotonic() - began_at
        return round((done_bytes - began_bytes) / seconds, 1) if seconds >= _SAMPLE_SECONDS else None
