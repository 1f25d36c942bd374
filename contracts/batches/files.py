"""Files of a batch: its requests and its results, JSON lines in the storage with a record in Redis. Knows no HTTP.

Each is stored as an input whose key belongs to it alone, so that `uploads/` counts its bytes and removes it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from redis import Redis

from contracts.batches.listing import MAX_ENTRIES, ListedPage, list_page
from contracts.errors import Conflict, NotFound, Unavailable
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable, unix_seconds
from contracts.storage import Storage
from contracts.uploads.owner_bytes import ByteLimit
from contracts.uploads.retention import Retention

Purpose = Literal["batch", "batch_output"]

#: How much of a file is read at a time.
_CHUNK_BYTES = 2**20


class StoredFile(BaseModel):
    """A file. Times are Unix seconds on Redis' clock.

    Attributes:
        key: of its content in the storage.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    owner: str
    filename: str
    purpose: Purpose
    key: str
    size_bytes: int
    created_at: float
    expires_at: float

    def to_hash(self) -> dict[str, str]:
        """Make its Redis hash."""
        return {name: str(value) for name, value in self.model_dump(exclude={"id"}).items()}


def new_id() -> str:
    """Make the id of a file."""
    return f"file-{secrets.token_hex(12)}"


class FileStore:
    """All files."""

    def __init__(self, connection: Redis, storage: Storage, retention: Retention) -> None:
        """`connection` decodes responses."""
        self._connection = connection
        self._storage = storage
        self._retention = retention
        self._scripts = Scripts(connection)

    def add(
        self, source: Path, owner: str, filename: str, purpose: Purpose, seconds: float, limit: ByteLimit
    ) -> StoredFile:
        """Store a file for its owner, for `seconds`.

        Raises:
            Conflict: the owner has as many files as one may have.
            QuotaExceeded: the file would exceed the limit of the owner's bytes.
            Unavailable: Redis or the storage does not answer.
        """
        file = self.write(new_id(), source, owner, filename, purpose, seconds, limit)
        with redis_errors_are_unavailable():
            found = self._scripts.run("register_file", **registration(file), max_files=MAX_ENTRIES)
        if found == "swept":
            raise Unavailable("the file was removed while it was being registered; send it again")
        if found == "full":
            self._retention.drop(file.key)
            raise Conflict(f"the limit of {MAX_ENTRIES} files is reached; delete some first")
        return file

    def write(
        self,
        id: str,
        source: Path,
        owner: str,
        filename: str,
        purpose: Purpose,
        seconds: float,
        limit: ByteLimit,
    ) -> StoredFile:
        """Store a file's content, without its record; writing the same id again replaces it. Raises as `add`."""
        size_bytes = source.stat().st_size
        key = self._retention.retain(
            hashlib.sha256(id.encode()).hexdigest(), seconds, "jsonl", size_bytes=size_bytes, limit=limit
        )
        self._storage.write_file(key, source)
        now = self._now()
        return StoredFile(
            id=id, owner=owner, filename=filename, purpose=purpose, key=key, size_bytes=size_bytes,
            created_at=now, expires_at=now + seconds,
        )  # fmt: skip

    def fetch(self, id: str, owner: str) -> StoredFile:
        """Read the record of an owner's file.

        Raises:
            NotFound: there is none with this id, or it belongs to another owner.
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            fields: Any = self._connection.hgetall(keys.FILE + id)
        file = _read(id, fields) if fields else None
        if file is None or file.owner != owner:
            raise NotFound("file", id[:200])
        return file

    def find_page(
        self, owner: str, purpose: str | None, after: str | None, limit: int, *, newest_first: bool = True
    ) -> ListedPage[StoredFile]:
        """Return a page of an owner's files; raises as `list_page`."""

        def read(id: str, fields: Mapping[str, str]) -> StoredFile | None:
            file = _read(id, fields)
            return file if purpose in (None, file.purpose) else None

        index = keys.OWNER_FILES + owner
        return list_page(self._connection, index, keys.FILE, read, after, limit, newest_first=newest_first)

    def delete(self, id: str, owner: str) -> None:
        """Delete a file; a batch that has not ended keeps the content of its own. Raises as `fetch`."""
        file = self.fetch(id, owner)
        with redis_errors_are_unavailable():
            self._scripts.run("unregister_file", id=id, owner=owner, input=file.key)

    def chunks(self, file: StoredFile) -> Iterator[bytes]:
        """Yield the content; raises NotFound where it is gone."""
        for start in range(0, file.size_bytes, _CHUNK_BYTES):
            yield self._storage.read_range(file.key, start, min(_CHUNK_BYTES, file.size_bytes - start))

    def _now(self) -> float:
        with redis_errors_are_unavailable():
            return unix_seconds(self._connection)


def registration(file: StoredFile) -> dict[str, Any]:
    """What the scripts that write a file's record are given."""
    return {
        "id": file.id,
        "owner": file.owner,
        "input": file.key,
        "fields": file.to_hash(),
        "created_at": file.created_at,
        "expires_at": file.expires_at,
    }


def _read(id: str, fields: Mapping[str, str]) -> StoredFile:
    return StoredFile.model_validate({"id": id, **fields})
