"""How many bytes each owner's files take in the storage, and the limit on them. Knows no HTTP and no files.

For each owner these items are counted: the inputs (images and LoRAs) that the owner has sent, until the files are
removed; the images of finished jobs, until the jobs are removed; for a job that has not ended, the most that its
images can take. Scripts change an item and the sum of an owner's items in one step. A recount compares the items
with the records, and adds them up again: it drops inputs whose files are gone, and corrects what is wrong.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar, cast

from redis import Redis

from contracts.errors import QuotaExceeded
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable

T = TypeVar("T")

#: Items that one script call compares with the records.
_ROUND = 500
#: Minimum time between two recounts of an owner whose calls exceed the limit.
_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class ByteLimit:
    """An owner, and the maximum bytes of the owner's files; `max_bytes` 0: no limit."""

    owner: str
    max_bytes: int


class OwnerBytes:
    """The counts of all owners."""

    def __init__(self, connection: Redis) -> None:
        """`connection` decodes responses."""
        self._connection = connection
        self._scripts = Scripts(connection)
        self._recounted_at: dict[str, float] = {}
        self._pending: list[str] = []

    def total(self, owner: str) -> int:
        """The bytes of an owner's files; raises Unavailable."""
        with redis_errors_are_unavailable():
            return int(cast("str | None", self._connection.hget(keys.STORED_BYTES, owner)) or 0)

    def run(self, owner: str, call: Callable[[], T]) -> T:
        """Run a call that stores something; where it exceeds the limit, once more after a recount.

        Raises:
            QuotaExceeded: the owner's files leave no room, also by a recount of the last seconds.
        """
        try:
            return call()
        except QuotaExceeded:
            now = time.monotonic()
            if now - self._recounted_at.get(owner, float("-inf")) < _PAUSE_SECONDS:
                raise
            self._recounted_at = {
                name: at for name, at in self._recounted_at.items() if now - at < _PAUSE_SECONDS
            } | {owner: now}
            self.recount(owner)
        return call()

    def recount(self, owner: str) -> int:
        """Compare an owner's items with the records, and add them up; returns the bytes.

        Raises:
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            for items in self._chunks(self._connection.hscan_iter(keys.OWNER_BYTES + owner, count=_ROUND)):
                self._scripts.run("recount_bytes", owner=owner, items=list(items))
            for items in self._chunks(self._recorded(owner)):
                self._scripts.run("recount_bytes", owner=owner, items=list(items), missing=items)
            return int(self._scripts.run("recount_bytes", owner=owner, items=[], sum=True))

    def recount_next(self) -> None:
        """Recount one owner; repeated, all of them in turn. Raises Unavailable."""
        if not self._pending:
            with redis_errors_are_unavailable():
                self._pending = cast("list[str]", self._connection.hkeys(keys.STORED_BYTES))
        if self._pending:
            self.recount(self._pending.pop())

    def _recorded(self, owner: str) -> Iterator[tuple[str, Any]]:
        """The items that the owner's records name: adapters, images of jobs; not of unreadable records."""
        for key in (keys.OWNER_LORAS, keys.OWNER_INVERSIONS, keys.OWNER_IP_ADAPTERS, keys.OWNER_CONTROLNETS):
            for row in cast("list[str]", self._connection.hvals(key + owner)):
                with suppress(ValueError, TypeError, KeyError):
                    uploaded = json.loads(row)
                    yield f"input:{uploaded['source']}", uploaded["size_bytes"]
        entries = self._connection.zscan_iter(keys.OWNER_JOBS + owner, count=_ROUND)
        while ids := [id for id, _ in islice(entries, _ROUND)]:
            with self._connection.pipeline(transaction=False) as pipe:
                for id in ids:
                    pipe.hget(keys.JOB + id, "images")
                found = cast("list[str | None]", pipe.execute())
            for id, images in zip(ids, found, strict=True):
                if images is not None:
                    with suppress(ValueError, TypeError, KeyError):
                        yield f"job:{id}", sum(image["size_bytes"] for image in json.loads(images))

    @staticmethod
    def _chunks(items: Iterator[tuple[str, Any]]) -> Iterator[dict[str, int]]:
        chunk: dict[str, int] = {}
        for item, size_bytes in items:
            if not isinstance(size_bytes, int | str) or not str(size_bytes).isdecimal():
                continue
            chunk[item] = int(size_bytes)
            if len(chunk) == _ROUND:
                yield chunk
                chunk = {}
        if chunk:
            yield chunk
