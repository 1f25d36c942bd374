"""Where bytes live between the API and the workers: inputs by content hash, results by job and attempt.

One Protocol, one file a back end; `open_storage` chooses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from contracts.errors import SettingsError
from contracts.settings import SharedSettings
from contracts.storage.local import LocalStorage


class Storage(Protocol):
    """Bytes under keys such as `inputs/<sha256>.png`. All methods raise Unavailable when the store is away."""

    def write(self, key: str, data: bytes) -> None:
        """Store bytes; they are visible all at once or not at all, and replace what was there."""

    def read(self, key: str) -> bytes:
        """The bytes; raises NotFound."""

    def write_file(self, key: str, source: Path) -> None:
        """As `write`, for a file that may be larger than memory."""

    def read_file(self, key: str, target: Path) -> None:
        """Put the bytes into a file, piece by piece; raises NotFound. A broken-off read leaves a part of them."""

    def exists(self, key: str) -> bool:
        """Whether there are bytes under the key."""

    def find(self, prefix: str) -> list[str]:
        """Keys that begin with a prefix that ends in `/`, in order."""

    def delete(self, key: str) -> None:
        """Remove the bytes; nothing happens where there are none."""

    def clear(self, prefix: str) -> None:
        """Remove all that lies below a prefix that ends in `/`, and what broken-off writes left there."""

    def check(self) -> None:
        """Raises Unavailable when nothing can be written."""

    def sign(self, key: str, seconds: int) -> str | None:
        """A link of the store's own that reads the bytes for so long; None where it makes none."""


def open_storage(settings: SharedSettings) -> Storage:
    """The storage that the settings name.

    Raises:
        SettingsError: they name one that cannot be had.
    """
    if not settings.storage_url:
        return LocalStorage(settings.data / "storage")
    try:
        # Imported here: a service with a local folder needs no obstore.
        from contracts.storage.bucket import BucketStorage
    except ImportError:
        raise SettingsError("a bucket needs the package obstore: pip install 'darkroom[s3]'") from None
    return BucketStorage(settings.storage_url)
