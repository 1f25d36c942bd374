"""Waits until replicas have what was written, so that a failover cannot lose it. Knows no kind of write."""

from __future__ import annotations

import threading

from redis import Redis

from contracts.errors import Unavailable
from contracts.redis.connection import connect, redis_errors_are_unavailable
from contracts.settings import SharedSettings

#: Time for the answer itself, on top of the time that Redis waits.
_ANSWER_SECONDS = 2.0


class ReplicaBarrier:
    """Barrier that waits until enough replicas have a key. Thread-safe; connects when it is used."""

    def __init__(self, settings: SharedSettings) -> None:
        self._replicas = settings.redis_wait_replicas
        self._seconds = settings.redis_wait_seconds
        self._url = settings.redis_url
        self._connection: Redis | None = None
        self._lock = threading.Lock()
        self._are_behind = False

    def require(self) -> None:
        """Refuse a write whose confirmation would fail, as the last one's did: nothing is left behind then.

        Raises:
            Unavailable: replicas are still missing or behind, or Redis does not answer.
        """
        if self._are_behind:
            self.check()

    def check(self) -> None:
        """Check that the replicas are up to date, where any are required.

        Raises:
            Unavailable: replicas are missing or behind, or Redis does not answer.
        """
        if self._replicas and not self._confirmed(None):
            raise Unavailable(
                f"fewer than {self._replicas} replicas of the queue (Redis) are up to date, so no job is accepted"
            )

    def confirm(self, key: str) -> bool:
        """Wait until the replicas have everything that was written until now; where none are required, do not.

        The key is looked for in the same connection, whose server may be another one than that which wrote it.

        Returns:
            Whether the server has the key, and the replicas have it too. It may also exist without them.

        Raises:
            Unavailable: Redis does not answer.
        """
        return self._replicas == 0 or self._confirmed(key)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def _confirmed(self, key: str | None) -> bool:
        with redis_errors_are_unavailable(), self._connected().pipeline(transaction=False) as pipe:
            # WAIT covers what its own connection has read or written, so this must read something first.
            pipe.exists(key or "")
            pipe.wait(self._replicas, int(self._seconds * 1000))
            found, confirmed = pipe.execute()
        self._are_behind = confirmed < self._replicas
        return not self._are_behind and (key is None or found == 1)

    def _connected(self) -> Redis:
        with self._lock:
            if self._connection is None:
                seconds = self._seconds + _ANSWER_SECONDS
                self._connection = connect(self._url, timeout_seconds=seconds, retries=0)
            return self._connection
