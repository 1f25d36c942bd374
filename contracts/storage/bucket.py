"""Storage in a bucket, with obstore: S3 and compatible services, Google Cloud Storage, Azure.

On all of them an object becomes visible only when it is complete. Credentials, region and endpoint come from the
provider's own environment variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …), as in its other tools.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from contracts.errors import NotFound, SettingsError, Unavailable
from contracts.storage.keys import check_folder, check_key

#: After this time a call raises Unavailable; the caller may repeat it.
_TIMEOUT_SECONDS = 10
_RETRIES = 2
_PROBE_BYTES = 4096


class BucketStorage:
    """Storage in objects below a bucket's prefix; see `contracts.storage.Storage`.

    Attributes:
        url: bucket and prefix, without credentials.
    """

    def __init__(self, url: str) -> None:
        """`url` is `s3://bucket/prefix`, `gs://…` or `az://container/…`; raises SettingsError for other URLs."""
        self.url = url
        # Plain HTTP is used only if the operator configured such an endpoint, for example on this machine.
        client: Any = {"timeout": f"{_TIMEOUT_SECONDS}s", "connect_timeout": "5s", "allow_http": True}
        retries: Any = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_TIMEOUT_SECONDS)}
        try:
            self._store: Any = from_url(url, client_options=client, retry_config=retries)
        except (BaseError, ValueError) as error:
            raise SettingsError(f"DARKROOM_STORAGE_URL {url}: {_first_line(error)}") from None

    def write(self, key: str, data: bytes) -> None:
        """Store bytes atomically; durable when this returns."""
        with _translated_errors(key):
            kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
            obstore.put(self._store, check_key(key), data, attributes={"Content-Type": kind})

    def read(self, key: str) -> bytes:
        """Return the bytes; raises NotFound."""
        with _translated_errors(key):
            return bytes(obstore.get(self._store, check_key(key)).bytes())

    def read_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return some bytes of an object; raises NotFound."""
        with _translated_errors(key):
            try:
                return bytes(obstore.get_range(self._store, check_key(key), start=start, length=size_bytes))
            except BaseError as error:
                if "non-partial response" not in str(error):
                    raise
            # Some servers that are called compatible ignore ranges, and send everything.
            return self._cut(key, start, start + size_bytes)

    def _cut(self, key: str, start: int, end: int) -> bytes:
        pieces, position = [], 0
        for chunk in obstore.get(self._store, check_key(key)).stream():
            pieces.append(bytes(chunk)[max(0, start - position) : max(0, end - position)])
            position += len(chunk)
            if position >= end:
                break
        return b"".join(pieces)

    def write_file(self, key: str, source: Path) -> None:
        """Store a file, which may be larger than memory, in parts; visible once the last part is stored."""
        with source.open("rb") as file, _translated_errors(key):
            obstore.put(self._store, check_key(key), file)

    def read_file(self, key: str, target: Path) -> None:
        """Copy to a local file in chunks; raises NotFound."""
        with _translated_errors(key):
            chunks = obstore.get(self._store, check_key(key)).stream()
            with target.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)

    def exists(self, key: str) -> bool:
        """Return whether the key exists."""
        try:
            with _translated_errors(key):
                obstore.head(self._store, check_key(key))
        except NotFound:
            return False
        return True

    def find(self, prefix: str) -> list[str]:
        """Return the keys below a prefix that ends in `/`, sorted."""
        folder = check_folder(prefix)
        with _translated_errors(prefix):
            pages = obstore.list(self._store, folder)
            return sorted(entry["path"] for page in pages for entry in page)

    def find_older(self, prefix: str, age_seconds: float) -> list[str]:
        """Return the keys of objects that are at least this old by the bucket's clock and ours, sorted."""
        folder, latest = check_folder(prefix), datetime.now(UTC) - timedelta(seconds=age_seconds)
        with _translated_errors(prefix):
            pages = obstore.list(self._store, folder)
            return sorted(entry["path"] for page in pages for entry in page if entry["last_modified"] < latest)

    def delete(self, key: str) -> None:
        """Remove an object; does nothing if it does not exist."""
        self._remove([check_key(key)])

    def clear(self, prefix: str) -> None:
        """Remove everything below a prefix that ends in `/`. Interrupted writes leave nothing there."""
        self._remove(self.find(prefix))

    def check(self) -> None:
        """Write some bytes, always to the same key."""
        self.write("probe/writable", bytes(_PROBE_BYTES))

    def free_bytes(self) -> int | None:
        """Return None: a bucket does not say."""
        return None

    def sign(self, key: str, seconds: int) -> str | None:
        """Return a URL that reads the object without credentials for `seconds`; None if the store cannot sign."""
        try:
            with _translated_errors(key):
                return str(obstore.sign(self._store, "GET", check_key(key), timedelta(seconds=seconds)))
        except (NotImplementedError, ValueError):
            return None

    def _remove(self, keys: list[str]) -> None:
        for key in keys:
            try:
                with _translated_errors(key):
                    obstore.delete(self._store, key)
            except NotFound:  # some stores raise it; the object is gone either way
                continue


@contextmanager
def _translated_errors(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFound("stored object", key) from None
    except (BaseError, OSError) as error:
        raise Unavailable(f"the storage does not answer: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message; the rest quotes whole requests."""
    return (str(error).splitlines() or [type(error).__name__])[0].partition("<?xml")[0].rstrip(" :")[:300]
