"""Decoder processes of one kind, and the calls that wait for them: few, and owners take turns.

Without turns, one client whose images take long would keep everybody's waiting. Knows no images.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.inputs.codec.limits import Limits
from app.inputs.process import DecoderProcess
from contracts.errors import TooManyImages

_RETRY_AFTER_SECONDS = 2


@dataclass(eq=False)
class _Call:
    """A call that waits: it gets a process, or has to go for another owner's."""

    owner: str
    process: DecoderProcess | None = None
    is_displaced: bool = False


class DecoderLane:
    """Some processes, each for one call at a time; any thread may call."""

    def __init__(
        self, limits: Limits, processes: int, max_waiting: int, timeout_seconds: float, task_bytes: int = 0
    ) -> None:
        """Start nothing yet.

        Args:
            max_waiting: calls that may wait: a thread that waits is one that other requests lack.
            task_bytes: memory that the tasks need beside decoding an image.
        """
        self._processes = [DecoderProcess(limits, timeout_seconds, task_bytes) for _ in range(processes)]
        self._max_calls = processes + max_waiting
        self._changed = threading.Condition()
        # Last in, first out: further processes start only when the others are busy.
        self._idle = list(self._processes)
        self._waiting: list[_Call] = []
        self._running: Counter[str] = Counter()
        self._turns: dict[str, int] = {}

    def run(self, request: Mapping[str, Any], data: bytes, owner: str) -> tuple[Mapping[str, Any], bytes]:
        """Exchange messages with a process.

        Raises:
            TooManyImages: as many calls as may wait are waiting, and no owner has more of them than this one; or
                this call had to go for an owner who has fewer.
            DecoderProcessFailed
        """
        process = self._wait_for_turn(owner)
        try:
            return process.exchange(request, data)
        finally:
            with self._changed:
                self._idle.append(process)
                self._running -= Counter([owner])
                self._assign()

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.stop()

    def _wait_for_turn(self, owner: str) -> DecoderProcess:
        call = _Call(owner)
        with self._changed:
            if self._running.total() + len(self._waiting) >= self._max_calls:
                self._displace_for(owner)
            self._waiting.append(call)
            self._assign()
            while call.process is None:
                if call.is_displaced:
                    raise TooManyImages(_RETRY_AFTER_SECONDS)
                self._changed.wait()
            return call.process

    def _displace_for(self, owner: str) -> None:
        """Give up the last call of the owner who has most; raises TooManyImages if that is this one."""
        calls = self._running + Counter(call.owner for call in self._waiting)
        last = max(reversed(self._waiting), key=lambda call: calls[call.owner], default=None)
        if last is None or calls[last.owner] <= calls[owner] + 1:
            raise TooManyImages(_RETRY_AFTER_SECONDS)
        last.is_displaced = True
        self._waiting.remove(last)
        self._changed.notify_all()

    def _assign(self) -> None:
        """Give idle processes to the owner who has fewest; of several, to the one not served for longest."""
        while self._idle and self._waiting:
            call = min(self._waiting, key=lambda one: (self._running[one.owner], self._turns.get(one.owner, 0)))
            self._waiting.remove(call)
            self._running[call.owner] += 1
            present = {*self._running, *(other.owner for other in self._waiting)}
            turn = max(self._turns.values(), default=0) + 1
            self._turns = {owner: last for owner, last in self._turns.items() if owner in present} | {
                call.owner: turn
            }
            call.process = self._idle.pop()
        self._changed.notify_all()
