"""Storage in a local (or shared) folder: write beside, fsync, rename."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from contracts.errors import NotFound, Unavailable
from contracts.storage.keys import check_folder, check_key

#: How much of a large file is in memory at one time.
_PIECE_BYTES = 2**20


class LocalStorage:
    """Bytes as files below a folder; see `contracts.storage.Storage`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, key: str, data: bytes) -> None:
        """Store bytes; complete before they are visible, durable when this returns."""
        self._write(key, lambda file: file.write(data))

    def write_file(self, key: str, source: Path) -> None:
        """As `write`, for a file that may be larger than memory."""

        def copy(file: BinaryIO) -> None:
            with source.open("rb") as stream:
                shutil.copyfileobj(stream, file, _PIECE_BYTES)

        self._write(key, copy)

    def read(self, key: str) -> bytes:
        """The bytes; raises NotFound."""
        with _os_errors_are_unavailable():
            try:
                return self._path(key).read_bytes()
            except FileNotFoundError:
                raise NotFound("stored object", key) from None

    def read_file(self, key: str, target: Path) -> None:
        """Put the bytes into a file; raises NotFound."""
        with _os_errors_are_unavailable():
            try:
                stream = self._path(key).open("rb")
            except FileNotFoundError:
                raise NotFound("stored object", key) from None
            with stream, target.open("wb") as file:
                shutil.copyfileobj(stream, file, _PIECE_BYTES)

    def exists(self, key: str) -> bool:
        """Whether there are bytes under the key."""
        return self._path(key).is_file()

    def find(self, prefix: str) -> list[str]:
        """Keys that begin with a prefix that ends in `/`, in order; unfinished writes are none."""
        with _os_errors_are_unavailable():
            top = self.root / check_folder(prefix)
            found = (Path(at, name) for at, _, names in os.walk(top, onerror=_raise_unless_gone) for name in names)
            return sorted(
                path.relative_to(self.root).as_posix() for path in found if not path.name.startswith(".")
            )

    def delete(self, key: str) -> None:
        """Remove the bytes, if any, what broken-off writes left, and folders below the first that are empty."""
        path = self._path(key)
        with _os_errors_are_unavailable():
            path.unlink(missing_ok=True)
            for part in path.parent.glob(f".{path.name}.*.part"):
                part.unlink(missing_ok=True)
            for folder in list(path.parents)[: len(path.relative_to(self.root).parts) - 2]:
                with suppress(OSError):  # not empty, or gone already
                    folder.rmdir()

    def clear(self, prefix: str) -> None:
        """Remove everything below a prefix that ends in `/`, unfinished writes too."""
        folder = self.root / check_folder(prefix)
        with _os_errors_are_unavailable():
            while folder.exists():
                with suppress(FileNotFoundError):  # somebody else removes there too; what is left is next
                    shutil.rmtree(folder)

    def check(self) -> None:
        """Raises Unavailable when nothing can be written."""
        self.write("probe/writable", b"")

    def sign(self, key: str, seconds: int) -> str | None:
        """None: a folder answers nobody."""
        del key, seconds
        return None

    def _write(self, key: str, fill: Callable[[BinaryIO], object]) -> None:
        target = self._path(key)
        with _os_errors_are_unavailable():
            try:
                _write(target, fill)
            except FileNotFoundError:  # `delete` took the folder for empty in between
                _write(target, fill)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)


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
    """Make a rename durable: POSIX promises it only once the folder itself is synced."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise_unless_gone(error: OSError) -> None:
    """A folder that is removed while it is looked through holds nothing."""
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _os_errors_are_unavailable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the storage does not answer: {error.strerror}") from error
