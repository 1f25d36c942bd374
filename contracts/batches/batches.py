"""The life of batches in Redis: creation, rounds of work under a lease, cancelling, the end. Knows no HTTP.

One process works on a batch at a time, for a round. What it has done counts from its commit on, which is one step;
one that lost its lease commits nothing, and the next one repeats the round.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redis import Redis

from contracts.batches.files import StoredFile, registration
from contracts.batches.listing import MAX_ENTRIES, ListedPage, list_page
from contracts.batches.records import FINAL, Batch, BatchStatus, Round, StartedLine, write_fields
from contracts.errors import Conflict, DarkroomError, NotFound, QueueFull, Unavailable
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable
from contracts.storage import Storage
from contracts.uploads.owner_bytes import ByteLimit
from contracts.uploads.retention import Retention

#: Time after which another process takes over a batch from one that has died in a round.
LEASE_SECONDS = 30.0
#: Batches of one owner that have not ended.
MAX_UNFINISHED = 100
#: How long the record of a batch that has ended is kept.
_RECORD_SECONDS = 30 * 86_400
#: How long parts of results are kept of a batch that is never worked on again.
_PART_SECONDS = 7 * 86_400
_RETRY_SECONDS = 60


class LeaseLost(DarkroomError):
    """A lease on a batch that another process has by now."""


@dataclass(frozen=True)
class BatchLease:
    """The right to work on a batch."""

    id: str
    token: str


class BatchStore:
    """All batches."""

    def __init__(
        self, connection: Redis, storage: Storage, retention: Retention, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        """`connection` decodes responses."""
        self._connection = connection
        self._storage = storage
        self._retention = retention
        self._lease_seconds = lease_seconds
        self._scripts = Scripts(connection)

    def create(self, batch: Batch, window_seconds: float) -> Batch:
        """Store a new batch, which keeps the content of its file until it has ended.

        Raises:
            NotFound: the file has been removed meanwhile.
            QueueFull: too many batches of the owner have not ended.
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            found = self._scripts.run(
                "create_batch",
                id=batch.id,
                owner=batch.owner,
                input=batch.input_key,
                fields=batch.to_hash(),
                window_seconds=window_seconds,
                final=list(FINAL),
                max_unfinished=MAX_UNFINISHED,
                max_batches=MAX_ENTRIES,
            )
        if found == "swept":
            raise NotFound("file", batch.input_file_id)
        if found == "full":
            message = f"{MAX_UNFINISHED} of your batches have not ended, the maximum for one owner"
            raise QueueFull(message, _RETRY_SECONDS)
        return self.fetch(batch.id, batch.owner)

    def fetch(self, id: str, owner: str | None = None) -> Batch:
        """Read a batch; with `owner`, only of this owner.

        Raises:
            NotFound: there is none with this id, or it belongs to another owner.
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            fields: Any = self._connection.hgetall(keys.BATCH + id)
        if not fields or owner not in (None, fields["owner"]):
            raise NotFound("batch", id[:200])
        return Batch.from_hash(id, fields)

    def find_page(self, owner: str, after: str | None, limit: int) -> ListedPage[Batch]:
        """Return a page of an owner's batches, newest first; raises as `list_page`."""
        return list_page(self._connection, keys.OWNER_BATCHES + owner, keys.BATCH, Batch.from_hash, after, limit)

    def cancel(self, id: str, owner: str) -> Batch:
        """Cancel a batch: no further jobs are created for it, and those that were are cancelled.

        Raises:
            NotFound: as `fetch`.
            Conflict: it has ended, or is about to.
            Unavailable: Redis does not answer.
        """
        self.fetch(id, owner)
        with redis_errors_are_unavailable():
            before = self._scripts.run("cancel_batch", id=id)
        if before not in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.CANCELLING):
            raise Conflict(f"batch {id} is {before}, and can no longer be cancelled")
        return self.fetch(id, owner)

    def claim(self) -> BatchLease | None:
        """Take the batch whose next round is due, if there is one."""
        token = secrets.token_hex(8)
        with redis_errors_are_unavailable():
            id = self._scripts.run("claim_batch", token=token, lease_seconds=self._lease_seconds)
        return BatchLease(id, token) if id else None

    def extend(self, lease: BatchLease) -> None:
        """Keep a batch for longer; raises LeaseLost, Unavailable."""
        self.commit(lease, Round())

    def commit(self, lease: BatchLease, done: Round) -> None:
        """Store what was done, in one step; extends the lease.

        Raises:
            LeaseLost: nothing was stored.
            Unavailable: Redis does not answer, and it may or may not be stored.
        """
        self._fenced("commit_batch", lease, **done.arguments(), lease_seconds=self._lease_seconds)

    def release(self, lease: BatchLease, pause_seconds: float) -> None:
        """End a round; the next one is due after the pause. Does nothing where the lease is lost."""
        with redis_errors_are_unavailable():
            self._scripts.run("release_batch", id=lease.id, token=lease.token, pause_seconds=pause_seconds)

    def finish(self, lease: BatchLease, status: BatchStatus, files: Sequence[StoredFile], **fields: Any) -> None:
        """End a batch: its results become visible, and the files of its rounds are removed. Raises as `commit`."""
        self._fenced(
            "finish_batch",
            lease,
            fields=write_fields({"status": status, **fields}),
            ended_at=f"{status}_at",
            files=[registration(file) for file in files],
            record_seconds=_RECORD_SECONDS,
        )

    def started(self, id: str) -> dict[int, StartedLine]:
        """The lines of a batch whose jobs' results are not stored yet, by number."""
        with redis_errors_are_unavailable():
            found = cast("dict[str, str]", self._connection.hgetall(keys.BATCH_LINES + id))
        return {int(number): StartedLine.model_validate_json(text) for number, text in found.items()}

    def write_part(self, lease: BatchLease, batch: Batch, kind: str, source: Path) -> str:
        """Store a part of a batch's results; it counts once a commit names it. Returns its storage key."""
        # Not limited: what has been computed must not be lost. New jobs are refused instead.
        name = f"{batch.id} {lease.token} {batch.parts} {kind}"
        key = self._retention.retain(
            hashlib.sha256(name.encode()).hexdigest(),
            _PART_SECONDS,
            "jsonl",
            size_bytes=source.stat().st_size,
            limit=ByteLimit(batch.owner, 0),
        )
        self._storage.write_file(key, source)
        return key

    def parts(self, id: str, kind: str) -> list[str]:
        """The storage keys of the parts of a batch's results, in order."""
        with redis_errors_are_unavailable():
            found = cast("list[str]", self._connection.lrange(keys.BATCH_PARTS + id, 0, -1))
        return [key for entry, _, key in (text.partition(" ") for text in found) if entry == kind]

    def _fenced(self, script: str, lease: BatchLease, **arguments: Any) -> None:
        with redis_errors_are_unavailable():
            found = self._scripts.run(script, id=lease.id, token=lease.token, **arguments)
        if found == "swept":
            raise Unavailable("a file of results was removed while it was being registered")
        if not found:
            raise LeaseLost(f"another process works on batch {lease.id}")
