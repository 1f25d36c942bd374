"""Only what the system no longer holds of a file is read again."""

from __future__ import annotations

import os
from pathlib import Path

from worker.checkpoints.files import read_into_page_cache

_MIB = 2**20


def _release(file: Path, begin: int, length: int) -> None:
    """Let the system forget a part of a file."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, begin, length, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def test_what_the_system_has_forgotten_of_a_file_is_read_and_nothing_twice(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(os.urandom(13 * _MIB))
    _release(file, 0, 0)
    assert read_into_page_cache(file) == 13 * _MIB
    assert read_into_page_cache(file) == 0
    _release(file, 4 * _MIB, 4 * _MIB)
    assert 0 < read_into_page_cache(file) <= 8 * _MIB
    assert read_into_page_cache(file) == 0
