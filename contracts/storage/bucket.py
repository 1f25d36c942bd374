"""Storage in a bucket: S3 and what speaks like it, Google Cloud Storage, Azure. The library is obstore.

A put is complete before it is visible, on all of them. Credentials, region and endpoint come from the provider's
own environment variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …), as its other tools read them.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from contracts.errors import NotFound, SettingsError, Unavailable
from contracts.storage.keys import check_folder, check_key

#: Beyond this a store counts as away; the caller may repeat the call.
_TIMEOUT_SECONDS = 10
_RETRIES = 2


class BucketStorage:
    """Bytes as objects below a bucket's prefix; see `contracts.storage.Storage`.

    Attributes:
        url: where it is, without credentials.
    """

    def __init__(self, url: str) -> None:
        """`url` is `s3://bucket/prefix`, `gs://…` or `az://container/…`; raises SettingsError else."""
        self.url = url
        # Plain HTTP only ever comes from an endpoint that the operator wrote so: a store beside us.
        client: Any = {"timeout": f"{_TIMEOUT_SECONDS}s", "connect_timeout": "5s", "allow_http": True}
        retries: Any = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_TIMEOUT_SECONDS)}
        try:
            self._store: Any = from_url(url, client_options=client, retry_config=retries)
        except (BaseError, ValueError) as error:
            raise SettingsError(f"DARKROOM_STORAGE_URL {url}: {_first_line(error)}") from None

    def write(self, key: str, data: bytes) -> None:
        """Store bytes; complete before they are visible, durable when this returns."""
        with _errors_are_ours(key):
            kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
            obstore.put(self._store, check_key(key), data, attributes={"Content-Type": kind})

    def read(self, key: str) -> bytes:
        """The bytes; raises NotFound."""
        with _errors_are_ours(key):
            return bytes(obstore.get(self._store, check_key(key)).bytes())

    def write_file(self, key: str, source: Path) -> None:
        """As `write`, for a file that may be larger than memory: in parts, visible when the last one is there."""
        with source.open("rb") as file, _errors_are_ours(key):
            obstore.put(self._store, check_key(key), file)

    def read_file(self, key: str, target: Path) -> None:
        """Put the bytes into a file; raises NotFound."""
        with _errors_are_ours(key):
            pieces = obstore.get(self._store, check_key(key)).stream()
            with target.open("wb") as file:
                for piece in pieces:
                    file.write(piece)

    def exists(self, key: str) -> bool:
        """Whether there are bytes under the key."""
        try:
            with _errors_are_ours(key):
                obstore.head(self._store, check_key(key))
        except NotFound:
            return False
        return True

    def find(self, prefix: str) -> list[str]:
        """Keys that begin with a prefix that ends in `/`, in order."""
        folder = check_folder(prefix)
        with _errors_are_ours(prefix):
            pages = obstore.list(self._store, folder)
            return sorted(entry["path"] for page in pages for entry in page)

    def delete(self, key: str) -> None:
        """Remove the bytes; nothing happens where there are none."""
        self._remove([check_key(key)])

    def clear(self, prefix: str) -> None:
        """Remove all that lies below a prefix that ends in `/`. A broken-off write left nothing there."""
        self._remove(self.find(prefix))

    def check(self) -> None:
        """Raises Unavailable when nothing can be written."""
        self.write("probe/writable", b"")

    def sign(self, key: str, seconds: int) -> str | None:
        """A link that reads the object for so long, without credentials; None where the store cannot sign."""
        try:
            with _errors_are_ours(key):
                return str(obstore.sign(self._store, "GET", check_key(key), timedelta(seconds=seconds)))
        except (NotImplementedError, ValueError):
            return None

    def _remove(self, keys: list[str]) -> None:
        for key in keys:
            try:
                with _errors_are_ours(key):
                    obstore.delete(self._store, key)
            except NotFound:  # some stores say so; gone is gone
                continue


@contextmanager
def _errors_are_ours(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFound("stored object", key) from None
    except (BaseError, OSError) as error:
        raise Unavailable(f"the storage does not answer: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    """What the error says first; the rest quotes requests at length."""
    return (str(error).splitlines() or [type(error).__name__])[0].partition("<?xml")[0].rstrip(" :")[:300]
