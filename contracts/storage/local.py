"""Storage in a local or shared folder: write to a temporary file, fsync, rename."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from contracts.errors import NotFound, StorageFull, Unavailable
from contracts.storage.keys import check_folder, check_key

#: Chunk size for copying large files.
_CHUNK_BYTES = 2**20
#: The folders that may be file systems of their own, and what users call them.
_PARTS = {"images": "results", "inputs": "uploads"}
#: What `check` writes into each of them: an empty file fits on a full disk.
_PROBE_BYTES = 2**20
#: The name of an unfinished write, and of the file that it was to become.
_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")
#: Errors of a full disk, an exhausted disk quota, and a limit on the size of files.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LocalStorage:
    """Storage in files below a folder; see `contracts.storage.Storage`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._parts = [root / name for name in _PARTS]

    def write(self, key: str, data: bytes) -> None:
        """Store bytes atomically; durable when this returns."""
        self._write(key, lambda file: file.write(data))

    def write_file(self, key: str, source: Path) -> None:
        """Store a file, which may be larger than memory; otherwise as `write`."""

        def copy(file: BinaryIO) -> None:
            with source.open("rb") as stream:
                shutil.copyfileobj(stream, file, _CHUNK_BYTES)

        self._write(key, copy)

    def read(self, key: str) -> bytes:
        """Return the bytes; raises NotFound."""
        with _translated_errors():
            try:
                return self._path(key).read_bytes()
            except FileNotFoundError:
                raise NotFound("stored object", key) from None

    def read_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return some bytes of a file; raises NotFound."""
        with _translated_errors(), self._open(key) as stream:
            stream.seek(start)
            return stream.read(size_bytes)

    def read_file(self, key: str, target: Path) -> None:
        """Copy to a local file in chunks; raises NotFound."""
        with _translated_errors(), self._open(key) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, _CHUNK_BYTES)

    def exists(self, key: str) -> bool:
        """Return whether the key exists."""
        return self._path(key).is_file()

    def find(self, prefix: str) -> list[str]:
        """Return the keys below a prefix that ends in `/`, sorted, without unfinished writes."""
        with _translated_errors():
            return sorted(self._key(path) for path in self._walk(prefix) if not path.name.startswith("."))

    def find_older(self, prefix: str, age_seconds: float) -> list[str]:
        """Return the keys of files that are at least this old, sorted; those of unfinished writes, too."""
        latest, found = time.time() - age_seconds, set()
        with _translated_errors():
            for path in self._walk(prefix):
                part = _PART.fullmatch(path.name)
                with suppress(FileNotFoundError):  # removed meanwhile
                    if path.stat().st_mtime < latest:
                        found.add(self._key(path if part is None else path.with_name(part[1])))
        return sorted(found)

    def delete(self, key: str) -> None:
        """Remove a file, leftovers of its interrupted writes, and empty folders below the first level."""
        path = self._path(key)
        with _translated_errors():
            path.unlink(missing_ok=True)
            for part in path.parent.glob(f".{path.name}.*.part"):
                part.unlink(missing_ok=True)
            for folder in list(path.parents)[: len(path.relative_to(self.root).parts) - 2]:
                with suppress(OSError):  # not empty, or already removed
                    folder.rmdir()

    def clear(self, prefix: str) -> None:
        """Remove everything below a prefix that ends in `/`, including unfinished writes."""
        folder = self.root / check_folder(prefix)
        with _translated_errors():
            while folder.exists():
                with suppress(
                    FileNotFoundError
                ):  # another process removes files there too; try again with the rest
                    shutil.rmtree(folder)

    def check(self) -> None:
        """Write some bytes to the folders of results and of uploads, and remove them."""
        for name, title in _PARTS.items():
            with _translated_errors(f"the storage folder of {title} ({name}/)"):
                _probe(self.root / name)

    def free_bytes(self) -> int | None:
        """Return the free bytes of the fullest of its file systems, as far as this process may use them."""
        with _translated_errors():
            return min(map(_free_bytes, self._parts))

    def sign(self, key: str, seconds: int) -> str | None:
        """Return None: a folder has no URLs."""
        del key, seconds
        return None

    def _open(self, key: str) -> BinaryIO:
        try:
            return self._path(key).open("rb")
        except FileNotFoundError:
            raise NotFound("stored object", key) from None

    def _write(self, key: str, fill: Callable[[BinaryIO], object]) -> None:
        target = self._path(key)
        with _translated_errors():
            try:
                _write(target, fill)
            except FileNotFoundError:  # `delete` removed the empty folder in between
                _write(target, fill)

    def _walk(self, prefix: str) -> Iterator[Path]:
        walk = os.walk(self.root / check_folder(prefix), onerror=_raise_unless_gone)
        return (Path(folder, name) for folder, _, names in walk for name in names)

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)


def _probe(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".probe.{secrets.token_hex(4)}.part"
    try:
        with part.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        part.unlink(missing_ok=True)


def _free_bytes(folder: Path) -> int:
    """Of the file system that a folder is on, or will be on once it exists."""
    try:
        found = os.statvfs(folder)
    except (FileNotFoundError, NotADirectoryError):
        return _free_bytes(folder.parent)
    return found.f_bavail * found.f_frsize


def _write(target: Path, fill: Callable[[BinaryIO], object]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        _sync_folder(target.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, which POSIX guarantees only after the folder itself is synced."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise_unless_gone(error: OSError) -> None:
    """Ignore a folder that was removed during the walk; raise other errors."""
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _translated_errors(part: str = "the storage") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(f"{part} is full: {error.strerror}") from error
        raise Unavailable(f"{part} does not answer: {error.strerror}") from error
