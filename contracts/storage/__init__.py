"""Storage of files between API and workers: inputs by content hash, results by job and attempt.

One Protocol, one file for each back end; `open_storage` chooses.

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
    """Bytes under keys such as `inputs/<sha256>.png`. All methods raise Unavailable when it does not answer."""

    def write(self, key: str, data: bytes) -> None:
        """Store bytes; they are visible all at once or not at all, and replace what was there."""

    def read(self, key: str) -> bytes:
        """The bytes; raises NotFound."""

    def write_file(self, key: str, source: Path) -> None:
        """As `write`, for a file that may be larger than memory."""

    def read_file(self, key: str, target: Path) -> None:
        """Put the bytes into a file, piece by piece; raises NotFound. A broken-off read leaves a part of them."""

    def exists(self, key: str) -> bool:
        """Whether the key exists."""

    def find(self, prefix: str) -> list[str]:
        """Keys that begin with a prefix that ends in `/`, in order."""

    def delete(self, key: str) -> None:
        """Remove the bytes; nothing happens where there are none."""

    def clear(self, prefix: str) -> None:
        """Remove all that lies below a prefix that ends in `/`, and what broken-off writes left there."""

    def check(self) -> None:
        """Raises Unavailable when nothing can be written."""

    def sign(self, key: str, seconds: int) -> str | None:
        """A URL of the store's own that is valid for `seconds`; None where it cannot make one."""


def open_storage(settings: SharedSettings) -> Storage:
    """The storage that the settings name.

    Raises:
        SettingsError: its package is not installed, or its URL is unusable.
    """
    if not settings.storage_url:
        return LocalStorage(settings.data / "storage")
    try:
        # Imported here: a service with a local folder needs no obstore.
        from contracts.storage.bucket import BucketStorage
    except ImportError:
        raise SettingsError("a bucket needs the package obstore: pip install 'darkroom[s3]'") from None
    return BucketStorage(settings.storage_url)
