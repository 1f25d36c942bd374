"""Weights of one component in one piece of host memory, page-locked beside CUDA.

torch's pinned allocator rounds every tensor up to a power of two (FLUX.1's 31.4 GiB become 47.6) and keeps what is
freed. A buffer of exactly the tensors' bytes, registered with CUDA as a whole, takes what the plans count and is
given back when it is freed. Knows no modules.
"""

from __future__ import annotations

import errno
import logging
import mmap
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from worker.runtime import slices

_log = logging.getLogger(__name__)

#: Where tensors may begin: CUDA's copies and the CPU's vector instructions want no more.
ALIGNMENT_BYTES = 64


class HostBuffer:
    """Copies of tensors in host memory of their own.

    Attributes:
        tensors: the copies, in order, with the shapes, dtypes and strides of the originals; views of one buffer.
        bytes: size of the buffer.
        is_pinned: whether CUDA may read it directly, which is several times faster.
    """

    def __init__(self, originals: Sequence[torch.Tensor], device: torch.device) -> None:
        """Copy the originals; on a CUDA `device`, page-lock the copies.

        Raises:
            MemoryError: the host has no room.
        """
        offsets, self.bytes = layout(originals)
        self._memory = _allocate(self.bytes)
        self.tensors = [
            _view(self._memory, offset, original) for offset, original in zip(offsets, originals, strict=True)
        ]
        # Before the copies: those from the device run at its full speed then, and need one wait together.
        self.is_pinned = device.type == "cuda" and _register(self._memory, device)
        for copy, original in zip(self.tensors, slices.each(originals), strict=True):
            copy.copy_(original, non_blocking=self.is_pinned)
        if self.is_pinned:
            torch.cuda.current_stream(device).synchronize()
        if self.is_pinned:
            # The finalizer holds the memory, so that it is unlocked before it is unmapped.
            weakref.finalize(self, _unregister, self._memory, device).atexit = False


def lock_pages(size_bytes: int, device: torch.device) -> torch.Tensor | None:
    """Page-locked bytes for the rest of the process's life; None where the system does not allow it."""
    memory = _allocate(size_bytes)
    return memory if _register(memory, device) else None


def layout(tensors: Sequence[torch.Tensor]) -> tuple[list[int], int]:
    """Offsets of the tensors in one buffer, and its size, in bytes."""
    offsets, size = [], 0
    for tensor in tensors:
        offsets.append(size)
        size += -(-tensor.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return offsets, size


def _allocate(size_bytes: int) -> torch.Tensor:
    if size_bytes == 0:
        return torch.empty(0, dtype=torch.uint8)
    try:
        pages = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"the host has less than {size_bytes} bytes left for weights") from error
        raise
    with suppress(OSError, AttributeError):
        pages.madvise(mmap.MADV_HUGEPAGE)  # fewer pages to fault in and to lock
    return torch.frombuffer(pages, dtype=torch.uint8)


def _view(memory: torch.Tensor, offset: int, original: torch.Tensor) -> torch.Tensor:
    strides = torch.empty_like(original, device="meta").stride()  # channels-last stays so
    part = memory[offset : offset + original.nbytes]
    return part.view(original.dtype).as_strided(original.shape, strides)


def _register(memory: torch.Tensor, device: torch.device) -> bool:
    """Page-lock memory; False where the system does not allow it, and copies are slower then."""
    cudart: Any = torch.cuda.cudart
    with torch.cuda.device(device):
        code = int(cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, 0))
    if code == 0:
        return True
    _log.warning(
        "%d bytes of host memory could not be page-locked (CUDA error %d); weights are copied to the device more "
        "slowly. Raise the limit of locked memory (ulimit -l) or of the container",
        memory.nbytes,
        code,
    )
    with suppress(RuntimeError):
        torch.zeros(1, device=device)  # CUDA keeps the error until the next kernel asks
    return False


def _unregister(memory: torch.Tensor, device: torch.device) -> None:
    cudart: Any = torch.cuda.cudart
    with suppress(RuntimeError):  # a failed device has no copies under way
        torch.cuda.synchronize(device)
        cudart().cudaHostUnregister(memory.data_ptr())
