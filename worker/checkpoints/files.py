"""Content hashes of weights: one file, or a folder with all that shapes its output."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

_SHA256 = re.compile(r"^[0-9a-f]{64}$")
#: (path, size, mtime in ns) -> sha256; a file that changes is hashed anew.
_Stamp = tuple[str, int, int]


class ContentHasher:
    """Hashes files once, as long as they do not change."""

    def __init__(self) -> None:
        self._known: dict[_Stamp, str] = {}

    def hash(self, path: Path, variant: str | None = None) -> str:
        """Sha256 of a file's bytes, or of the list of a folder's weights and configurations with theirs."""
        if path.is_file():
            return self._hash_file(path)
        total = hashlib.sha256()
        for file in sorted(weight_files(path, variant)):
            total.update(f"{file.relative_to(path).as_posix()} {self._hash_file(file)}\n".encode())
        return total.hexdigest()

    def _hash_file(self, path: Path) -> str:
        real = path.resolve()
        # The hub's cache names a large file by its sha256.
        if real.parent.name == "blobs" and _SHA256.match(real.name):
            return real.name
        status = real.stat()
        stamp = (str(real), status.st_size, status.st_mtime_ns)
        if stamp not in self._known:
            with real.open("rb") as file:
                self._known[stamp] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._known[stamp]


def weight_files(path: Path, variant: str | None = None) -> Iterator[Path]:
    """The file itself, or a folder's weights and configurations."""
    if path.is_file():
        yield path
    else:
        yield from _in_folder(path, variant)


def _in_folder(folder: Path, variant: str | None) -> Iterator[Path]:
    for part in (folder, *(child for child in folder.iterdir() if child.is_dir())):
        weights = list(part.glob("*.safetensors"))
        chosen = [file for file in weights if f".{variant}." in file.name or f".{variant}-" in file.name]
        yield from chosen or weights
        for pattern in ("*.json", "*.txt", "*.model"):
            yield from part.glob(pattern)


_CHUNK_BYTES = 4 * 2**20


def read_into_page_cache(file: Path) -> int:
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
