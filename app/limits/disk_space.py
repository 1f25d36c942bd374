"""Whether there is space for what a request would store: asked before anything is written. Knows no owners."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from contracts.errors import StorageFull
from contracts.storage import Storage

#: What must stay free where bodies are spooled.
_SPOOL_RESERVE_BYTES = 16 * 2**20
_PROBE_BYTES = 2**16


class DiskSpace:
    """The space of the storage and of the folder for temporary files.

    The reserve lets accepted jobs store their results after uploads and new jobs are refused.
    """

    def __init__(self, storage: Storage, reserve_bytes: int) -> None:
        self._storage = storage
        self._reserve_bytes = reserve_bytes

    def require(self, size_bytes: int) -> None:
        """Check that the storage has space for so many bytes more. A bucket always has.

        Raises:
            StorageFull: less than the reserve would be left.
            Unavailable: the storage does not answer.
        """
        free_bytes = self._storage.free_bytes()
        if free_bytes is not None and free_bytes - size_bytes < self._reserve_bytes:
            raise StorageFull(
                "the service's storage is full: nothing was stored or queued; try again later, or ask the "
                "operator to free some space"
            )

    def require_spool(self, size_bytes: int) -> None:
        """Check that a body of so many bytes can be spooled; raises StorageFull."""
        if shutil.disk_usage(_spool_folder()).free - size_bytes < _SPOOL_RESERVE_BYTES:
            raise StorageFull(
                "the service's disk for temporary files is full: nothing was stored; try again later, or ask the "
                "operator to free some space"
            )

    def check_reserve(self) -> None:
        """Raise StorageFull, for the operator, if the reserve is used up."""
        free_bytes = self._storage.free_bytes()
        if free_bytes is not None and free_bytes < self._reserve_bytes:
            raise StorageFull(
                f"the storage has {free_bytes} bytes free, less than DARKROOM_API_RESERVE_BYTES "
                f"({self._reserve_bytes}): uploads and new jobs are refused"
            )

    def check_spool(self) -> None:
        """Raise StorageFull if the folder for temporary files takes no bytes."""
        try:
            with tempfile.TemporaryFile(dir=_spool_folder()) as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
        except OSError as error:
            raise StorageFull(f"the folder for temporary files cannot be written: {error.strerror}") from error


def _spool_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:  # it tries to write there at its first call
        raise StorageFull("the folder for temporary files is full") from error
