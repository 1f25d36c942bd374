"""How the C library gives memory back that a process has freed. Knows nothing of what it was used for."""

from __future__ import annotations

import ctypes
from contextlib import suppress

#: Parameters of mallopt(3), from glibc's malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES = 2**20
_HEAPS = 2


def return_large_blocks() -> None:
    """Give blocks of 1 MiB and more back as soon as they are free; to be called before any thread starts.

    glibc raises that limit to 32 MiB by itself, and has a heap for each of many threads, so that a process that
    once had large bodies in memory keeps tens of MiB for good. Other C libraries are left as they are.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_ARENA_MAX, _HEAPS)
