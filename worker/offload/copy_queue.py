"""Copies to a CUDA device beside what it computes, ordered on the device so that the host does not wait.

Knows nothing of weights. On the CPU nothing is queued: a copy is done when its call returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from worker.runtime.device import copy_stream


class CopyQueue:
    """A device's copy stream, and its order with the stream that computes.

    What is allocated inside `copying` belongs to the copy stream, whose later copies reuse its memory as soon as
    it is freed. So before it is freed, `before_copying` has these copies wait for what still reads it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = copy_stream(device)

    @contextmanager
    def copying(self) -> Iterator[None]:
        """Inside, allocations and asynchronous copies go to the copy stream."""
        with torch.cuda.stream(self._stream):
            yield

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy from page-locked memory, which must not change until `wait` for a later `copied` has returned."""
        with self.copying():
            target.copy_(source, non_blocking=True)

    def copied(self) -> Any:
        """An event: all copies so far are done."""
        return _record(self._stream)

    def computed(self) -> Any:
        """An event: all that was queued to be computed so far is done."""
        return _record(torch.cuda.current_stream(self._device))

    def before_computing(self, event: Any) -> None:
        """Have the device wait for an event before it computes what is queued from now on."""
        torch.cuda.current_stream(self._device).wait_event(event)

    def before_copying(self, event: Any) -> None:
        """Have the device wait for an event before it copies what is queued from now on."""
        self._stream.wait_event(event)

    def wait(self, event: Any) -> None:
        """Wait in the calling thread."""
        event.synchronize()


@cache
def queue_of(device: torch.device) -> CopyQueue | None:
    """The one queue of a CUDA device; None for the CPU."""
    return CopyQueue(device) if device.type == "cuda" else None


def _record(stream: Any) -> Any:
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(stream)
    return event
