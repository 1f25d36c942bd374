"""How long files are kept: images as long as their job, inputs as long as they are in use. Knows no HTTP.

A file is registered in Redis before it is written, and unregistered after it is removed, so a crash leaves no
unknown files. Expired jobs and inputs are leased to one sweeper at a time, so that several can run.

An input is in use for some time after an upload or while a request is being accepted, and by every job that reads
it until the job's record is removed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from redis import Redis
from redis.exceptions import ResponseError

from contracts.errors import QuotaExceeded, StorageFull, Unavailable
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable, unix_seconds
from contracts.storage import Storage
from contracts.uploads.owner_bytes import ByteLimit

_log = logging.getLogger(__name__)

#: Jobs, and inputs, that one round of a sweep leases.
_ROUND = 100
#: After this time another sweeper takes over what one has leased and not removed.
_LEASE_SECONDS = 60.0


class Retention:
    """Retention of jobs and inputs: those in use are kept, expired and unused ones are removed."""

    def __init__(
        self, connection: Redis, storage: Storage, gone_seconds: float, lease_seconds: float = _LEASE_SECONDS
    ) -> None:
        """`connection` decodes responses; `gone_seconds` is how long the tombstone of an expired job is kept."""
        self._connection = connection
        self._storage = storage
        self._gone_seconds = gone_seconds
        self._lease_seconds = lease_seconds
        self._scripts = Scripts(connection)

    def key_for(self, sha256: str, suffix: str = "png") -> str:
        """Return the storage key of the input with this content, or a new one; changes nothing.

        Raises:
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            key = cast("str | None", self._connection.get(keys.INPUT + sha256))
        return key or _new_key(sha256, suffix)

    def retain(
        self,
        sha256: str,
        seconds: float,
        suffix: str = "png",
        key: str | None = None,
        *,
        size_bytes: int = 0,
        limit: ByteLimit | None = None,
    ) -> str:
        """Keep the input with this content for at least `seconds`.

        Args:
            key: under which new content is registered, from `key_for`; None makes one.
            size_bytes: of the file; counted as bytes of the owner that `limit` names, until the file is removed.

        Returns:
            Its storage key: not `key` if another request registered the same content first.

        Raises:
            QuotaExceeded: the owner's files would take more than the limit.
            Unavailable: Redis does not answer.
        """
        key, counted = key or _new_key(sha256, suffix), {}
        if limit is not None:
            counted = {"owner": limit.owner, "bytes": size_bytes, "max_bytes": limit.max_bytes}
        with redis_errors_are_unavailable():
            found = self._scripts.run("retain_input", sha256=sha256, key=key, seconds=seconds, **counted)
        if isinstance(found, list) and limit is not None:
            raise QuotaExceeded(int(found[0]), limit.max_bytes)
        return cast("str", found)

    def retain_existing(self, sha256: str, seconds: float) -> str | None:
        """As `retain`, for an input that should exist; None when it does not."""
        with redis_errors_are_unavailable():
            return cast("str | None", self._scripts.run("retain_input", sha256=sha256, seconds=seconds))

    def drop(self, key: str) -> None:
        """Let an input be removed as soon as nothing holds it, whatever it was retained for."""
        with redis_errors_are_unavailable():
            self._connection.zadd(keys.INPUTS, {key: 0}, xx=True)

    def sweep(self) -> int:
        """Run one round; returns how many jobs and inputs were removed, 0 if none were due.

        A file that cannot be removed holds up no other: it is tried again when its lease ends. Files of expired
        jobs are removed even where Redis refuses to write, because its memory or its disk is full.

        Raises:
            Unavailable: Redis or the storage does not answer; a later round repeats what was not finished.
        """
        lease: dict[str, Any] = {"limit": _ROUND, "lease_seconds": self._lease_seconds}
        with redis_errors_are_unavailable():
            try:
                ids = self._scripts.run("due_jobs", **lease)
                inputs = self._scripts.run("due_inputs", **lease)
            except ResponseError as error:
                _log.warning("Redis refuses to write (%s): only files of expired jobs are removed", error)
                self._remove_files()
                return 0
            removed = sum(self._remove(self._expire, id) for id in ids)
            return removed + sum(self._remove(self._remove_input, key) for key in inputs)

    def _remove(self, action: Callable[[str], object], name: str) -> bool:
        """Remove one thing; False where that failed. Raises Unavailable if the whole storage is away."""
        try:
            action(name)
        except Unavailable as error:
            _log.warning("%s was not removed, and is tried again: %s", name, error)
            with suppress(StorageFull):  # what is full can be emptied
                self._storage.check()
            return False
        return True

    def _expire(self, id: str) -> None:
        remove_images(self._storage, id)
        self._scripts.run("expire", id=id, tombstone_seconds=self._gone_seconds)

    def _remove_input(self, key: str) -> None:
        self._storage.delete(key)
        self._connection.zrem(keys.GARBAGE, key)

    def _remove_files(self) -> None:
        """Without writing to Redis: remove files that nobody can read; their records are removed later."""
        now = int(unix_seconds(self._connection))
        for id in cast("list[str]", self._connection.zrangebyscore(keys.EXPIRY, "-inf", now)):
            self._remove(partial(remove_images, self._storage), id)
        for key in cast("list[str]", self._connection.zrange(keys.GARBAGE, 0, -1)):
            self._remove(self._storage.delete, key)


def _new_key(sha256: str, suffix: str) -> str:
    """Random, so that a sweep that removes the old file of some content never removes the new one."""
    return f"inputs/{sha256}.{secrets.token_hex(4)}.{suffix}"


def remove_images(storage: Storage, id: str) -> None:
    """Remove all images that any attempt of a job has stored.

    Raises:
        Unavailable: the storage does not answer; some images may be left.
    """
    storage.clear(f"images/{id}/")
