"""Storage of the files that API and workers exchange: inputs by content hash, results by job and attempt.

One Protocol, and one module for each back end; `open_storage` chooses.

local.py    a local or shared folder
bucket.py   S3, Google Cloud Storage, Azure
keys.py     the form of storage keys
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from contracts.errors import SettingsError
from contracts.settings import SharedSettings
from contracts.storage.local import LocalStorage


class Storage(Protocol):
    """Files under keys such as `inputs/<sha256>.png`.

    All methods raise Unavailable if it does not answer; those that write raise StorageFull if it is full.
    """

    def write(self, key: str, data: bytes) -> None:
        """Store bytes atomically, replacing a former file."""

    def read(self, key: str) -> bytes:
        """Return the bytes; raises NotFound."""

    def read_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return some bytes of a file, which has them; raises NotFound."""

    def write_file(self, key: str, source: Path) -> None:
        """Store a local file, which may be larger than memory; otherwise as `write`."""

    def read_file(self, key: str, target: Path) -> None:
        """Copy to a local file in chunks; raises NotFound. An interrupted read leaves a partial file."""

    def exists(self, key: str) -> bool:
        """Return whether the key exists."""

    def find(self, prefix: str) -> list[str]:
        """Return the keys below a prefix that ends in `/`, sorted."""

    def find_older(self, prefix: str, age_seconds: float) -> list[str]:
        """Return the keys below a prefix that are at least this old, sorted; those of interrupted writes, too."""

    def delete(self, key: str) -> None:
        """Remove a file; does nothing if it does not exist."""

    def clear(self, prefix: str) -> None:
        """Remove everything below a prefix that ends in `/`, including what interrupted writes have left."""

    def check(self) -> None:
        """Write some bytes and remove them; the error says which part of the storage refuses them."""

    def free_bytes(self) -> int | None:
        """Return how many bytes can still be stored; None where that has no limit that can be known."""

    def sign(self, key: str, seconds: int) -> str | None:
        """Return a URL of the storage itself that is valid for `seconds`; None if it cannot create one."""


def open_storage(settings: SharedSettings) -> Storage:
    """Return the storage that the settings name.

    Raises:
        SettingsError: its package is not installed, or its URL is invalid.
    """
    if not settings.storage_url:
        return LocalStorage(settings.data / "storage")
    try:
        # Imported here because a service with a local folder does not need obstore.
        from contracts.storage.bucket import BucketStorage
    except ImportError:
        raise SettingsError("a bucket needs the package obstore: pip install 'darkroom[s3]'") from None
    return BucketStorage(settings.storage_url)
