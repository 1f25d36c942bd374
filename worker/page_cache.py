"""Has the system hold files in memory, so that whoever reads them next waits for no disk.

Knows nothing of what is in them.
"""

from __future__ import annotations

import os
from pathlib import Path

_CHUNK_BYTES = 4 * 2**20


def hold(file: Path) -> int:
    """Read those parts of a file that the system no longer holds; returns how many bytes that were."""
    buffer = bytearray(_CHUNK_BYTES)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        chunks = range(0, os.fstat(descriptor).st_size, _CHUNK_BYTES)
        # All are asked for first, from the end: a look, and a read, may bring in the beginning of the next chunk.
        missing = [begin for begin in reversed(chunks) if not _is_held(descriptor, begin)]
        return sum(os.preadv(descriptor, [buffer], begin) for begin in reversed(missing))
    finally:
        os.close(descriptor)


def _is_held(descriptor: int, begin: int) -> bool:
    """Whether the chunk's first byte can be had at once: pages come and go by neighbourhoods."""
    try:
        return os.preadv(descriptor, [bytearray(1)], begin, os.RWF_NOWAIT) == 1
    except OSError:  # it would have to wait; or the file system cannot say
        return False
