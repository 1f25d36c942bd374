"""Weight files on disk: what belongs to a checkpoint, its content hash, and its place in the page cache.

Knows no formats and loads nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from contracts.hub.cache import verified_sha256
from contracts.hub.folders import folder_files
from contracts.hub.repository_files import RepositoryFiles
from contracts.weights.counts.parameter_counts import controlnet_parts

#: How much of a file is looked at, and read, at once.
_CHUNK_BYTES = 4 * 2**20
#: Path, size, and modification time in ns: a file that changes is hashed again.
_Stamp = tuple[str, int, int]


class ContentHasher:
    """Sha256 hashes of files, each computed once while the file does not change."""

    def __init__(self) -> None:
        self._known: dict[_Stamp, str] = {}

    def hash(self, path: Path, variant: str | None = None, beside: Sequence[Path] = ()) -> str:
        """Sha256 of a file; else of the list of the files that are loaded, with their hashes.

        Args:
            path: a file, a folder, or the index of a ControlNet's shards.
            variant: as in diffusers (`fp16`); weights of that variant are taken where a component has them.
            beside: weights that a single file lacks, and that are loaded with it.
        """
        files = list(weight_files(path, variant))
        if files == [path] and not beside:
            return self._hash_file(path)
        folder = path if path.is_dir() else path.parent
        total = hashlib.sha256()
        for file in sorted(files):
            total.update(f"{file.relative_to(folder).as_posix()} {self._hash_file(file)}\n".encode())
        for file in beside:
            total.update(f"{file.parent.name}/{file.name} {self._hash_file(file)}\n".encode())
        return total.hexdigest()

    def _hash_file(self, path: Path) -> str:
        # The hub's cache names a large file by its sha256, but only a verified one has it.
        verified = verified_sha256(path)
        if verified is not None:
            return verified
        real = path.resolve()
        status = real.stat()
        stamp = (str(real), status.st_size, status.st_mtime_ns)
        if stamp not in self._known:
            with real.open("rb") as file:
                self._known[stamp] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._known[stamp]


def weight_files(path: Path, variant: str | None = None) -> Iterator[Path]:
    """Yield the file itself, or those that are loaded of a folder or of an index of shards."""
    if path.suffix == ".json":
        yield from controlnet_parts(path)
    elif path.is_file():
        yield path
    else:
        yield from (path / name for name in folder_files(RepositoryFiles.in_folder(path), variant))


def read_into_page_cache(file: Path) -> int:
    """Read the parts of a file that are not in the system's page cache; returns how many bytes were read."""
    buffer = bytearray(_CHUNK_BYTES)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        chunks = range(0, os.fstat(descriptor).st_size, _CHUNK_BYTES)
        # Look at all first, from the end: a look or a read may bring in the beginning of the next chunk.
        missing = [begin for begin in reversed(chunks) if not _is_cached(descriptor, begin)]
        return sum(os.preadv(descriptor, [buffer], begin) for begin in reversed(missing))
    finally:
        os.close(descriptor)


def _is_cached(descriptor: int, begin: int) -> bool:
    """Whether the chunk's first byte is in the page cache, where neighbouring pages come and go together."""
    try:
        return os.preadv(descriptor, [bytearray(1)], begin, os.RWF_NOWAIT) == 1
    except OSError:  # the read would block, or the file system cannot tell
        return False
