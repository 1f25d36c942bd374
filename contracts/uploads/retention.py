"""How long things stay: images go with their job, inputs when nobody holds them. Knows no HTTP.

Books first: a file is known to Redis before it is written, and forgotten there after it is removed, so that no
crash leaves one that nobody knows of. What is due is lent to one sweeper for a while, so that several may run.

An input is held for a time (an upload, a request that is being accepted) and by every job that reads it, until the
job itself is forgotten.
"""

from __future__ import annotations

import secrets
from typing import Any, cast

from redis import Redis

from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable
from contracts.storage import Storage

#: Things that one round of a sweep takes up.
_ROUND = 100
#: A sweeper that has not removed what it took up by then has died; another takes it up.
_LEASE_SECONDS = 60.0


class Retention:
    """Holds inputs, and sweeps what has expired."""

    def __init__(
        self, connection: Redis, storage: Storage, gone_seconds: float, lease_seconds: float = _LEASE_SECONDS
    ) -> None:
        """`connection` decodes responses; `gone_seconds` is how long an expired job is remembered."""
        self._connection = connection
        self._storage = storage
        self._gone_seconds = gone_seconds
        self._lease_seconds = lease_seconds
        self._scripts = Scripts(connection)

    def retain(self, sha256: str, seconds: float, suffix: str = "png") -> str:
        """Keep the input with this content for at least `seconds`, and return its storage key, new or existing.

        Raises:
            Unavailable: Redis does not answer.
        """
        key = f"inputs/{sha256}.{secrets.token_hex(4)}.{suffix}"
        with redis_errors_are_unavailable():
            return cast("str", self._scripts.run("retain_input", sha256=sha256, key=key, seconds=seconds))

    def retain_existing(self, sha256: str, seconds: float) -> str | None:
        """As `retain`, for an input that should exist; None when it does not."""
        with redis_errors_are_unavailable():
            return cast("str | None", self._scripts.run("retain_input", sha256=sha256, seconds=seconds))

    def sweep(self) -> int:
        """One round; returns how many jobs and inputs were removed: 0 when nothing is due.

        Raises:
            Unavailable: Redis or the storage does not answer; what was begun comes up again.
        """
        lent: dict[str, Any] = {"limit": _ROUND, "lease_seconds": self._lease_seconds}
        with redis_errors_are_unavailable():
            ids = self._scripts.run("due_jobs", **lent)
            for id in ids:
                remove_images(self._storage, id)
                self._scripts.run("expire", id=id, tombstone_seconds=self._gone_seconds)
            inputs = self._scripts.run("due_inputs", **lent)
            for key in inputs:
                self._storage.delete(key)
                self._connection.zrem(keys.GARBAGE, key)
        return len(ids) + len(inputs)


def remove_images(storage: Storage, id: str) -> None:
    """Remove all that any attempt of a job has stored.

    Raises:
        Unavailable: the storage does not answer; some may be left.
    """
    storage.clear(f"images/{id}/")
