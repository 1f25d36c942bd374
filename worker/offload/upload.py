"""Weights from pageable host memory, such as a file that was just mapped, to a CUDA device.

CUDA copies pageable memory blockwise through a small buffer of its own while the caller waits. Two page-locked
buffers in turn do better: one is filled by all of torch's threads while the bytes of the other cross. Knows no
modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from worker.offload.copy_queue import CopyQueue, queue_of
from worker.offload.host_buffer import lock_pages
from worker.runtime import slices

#: Of one of the two buffers: enough that a copy takes milliseconds and its start microseconds.
_BUFFER_BYTES = 64 * 2**20


class Uploader:
    """Copier of tensors to a device, through buffers that its copies can read while the host fills others."""

    def __init__(self, device: torch.device, queue: CopyQueue, buffers: Sequence[torch.Tensor]) -> None:
        """`buffers`: of bytes, page-locked, all of one size."""
        self._device, self._queue, self._buffers = device, queue, buffers
        self._events: list[Any] = [None] * len(buffers)
        self._current, self._filled = 0, 0

    def upload(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return copies on the device, with the same shapes, dtypes and strides.

        What is computed from now on waits for them; the host waits only for buffers.
        """
        with torch.inference_mode(mode=False):
            targets = [torch.empty_like(tensor, device=self._device) for tensor in tensors]
        # The memory may have been read by what is still queued to be computed.
        self._queue.before_copying(self._queue.computed())
        for source, target in zip(tensors, targets, strict=True):
            if source.stride() == target.stride() and source.numel():
                self._upload_bytes(_bytes_of(source), _bytes_of(target))
            else:
                target.copy_(source)  # views with gaps, which no checkpoint has
            if slices.is_full(source.nbytes):
                self._leave_buffer()  # what others upload meanwhile goes through the same buffers
                slices.end()
        self._leave_buffer()
        self._queue.before_computing(self._queue.copied())
        return targets

    def _upload_bytes(self, source: torch.Tensor, target: torch.Tensor) -> None:
        begin, end = 0, source.numel()
        while begin < end:
            buffer = self._buffers[self._current]
            if not self._filled:
                self._wait_for_buffer()
            count = min(end - begin, buffer.numel() - self._filled)
            part = buffer[self._filled : self._filled + count]
            part.copy_(source[begin : begin + count])
            self._queue.copy(target[begin : begin + count], part)
            begin, self._filled = begin + count, self._filled + count
            if self._filled == buffer.numel():
                self._leave_buffer()

    def _wait_for_buffer(self) -> None:
        """Wait until all copies from the current buffer are done."""
        event, self._events[self._current] = self._events[self._current], None
        if event is not None:
            self._queue.wait(event)

    def _leave_buffer(self) -> None:
        """Go on with the next buffer."""
        if self._filled:
            self._events[self._current] = self._queue.copied()
            self._current, self._filled = (self._current + 1) % len(self._buffers), 0


@cache
def uploader_of(device: torch.device) -> Uploader | None:
    """The only uploader of a CUDA device; None for the CPU, and if no memory can be page-locked."""
    queue = queue_of(device)
    if queue is None:
        return None
    buffers = [lock_pages(_BUFFER_BYTES, device) for _ in range(2)]
    locked = [buffer for buffer in buffers if buffer is not None]
    return Uploader(device, queue, locked) if len(locked) == len(buffers) else None


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor without gaps, in the order in which they are stored."""
    begin = tensor.storage_offset() * tensor.element_size()
    stored = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
    return stored[begin : begin + tensor.nbytes]
