"""Retries that a client's library sends by itself, without an idempotency key, because no answer came in time.

For a minute, the jobs that a caller's bodies have made can be found again, until their ends have been delivered.
A call that is still being accepted is there too: its retry waits for it, and makes no other job. Knows no HTTP.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from redis import Redis

from contracts.errors import Unavailable
from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable

#: How long a body's jobs can be found again.
_WINDOW_SECONDS = 60
#: How long a retry waits for the call that it repeats to be accepted.
_PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.05
#: Jobs that are remembered for one body of one caller.
_MAX_JOBS = 100
_PENDING = "pending:"


@dataclass(frozen=True)
class RepeatableCall:
    """A call of a client whose library retries.

    Attributes:
        caller: whose calls are the same only among themselves: owner and API key.
        fingerprint: equal for calls with the same target and body.
        is_retry: whether the client says that it sends the call again.
    """

    caller: str
    fingerprint: str
    is_retry: bool

    @property
    def key(self) -> str:
        """The Redis key."""
        return keys.RETRIES + f"{self.caller}:{self.fingerprint}"


class Retries:
    """The calls of the last minute. Methods raise Unavailable where Redis does not answer."""

    def __init__(self, connection: Redis) -> None:
        """`connection` decodes responses."""
        self._connection = connection

    @contextmanager
    def accepting(self, call: RepeatableCall) -> Iterator[Callable[[str], None]]:
        """A call is being accepted while the block runs; the block passes the id of the job that it made."""
        pending = _PENDING + secrets.token_hex(8)
        made: list[str] = []
        self._add(call, pending)
        try:
            yield made.append
        finally:
            with suppress(Unavailable):  # it expires by itself
                self._replace(call, pending, made)

    def made_by(self, call: RepeatableCall) -> Sequence[str]:
        """The jobs of this call, the latest first. Waits for a while for a call that is just being accepted."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with redis_errors_are_unavailable():
                found = [str(name) for name in self._connection.zrevrange(call.key, 0, -1)]
            if not found or not found[0].startswith(_PENDING) or time.monotonic() > deadline:
                return [name for name in found if not name.startswith(_PENDING)]
            time.sleep(_PAUSE_SECONDS)

    def forget(self, call: RepeatableCall, id: str) -> None:
        """The end of a job has been delivered."""
        with redis_errors_are_unavailable():
            self._connection.zrem(call.key, id)

    def _add(self, call: RepeatableCall, member: str) -> None:
        with redis_errors_are_unavailable(), self._connection.pipeline() as pipe:
            pipe.zadd(call.key, {member: time.time()})
            pipe.zremrangebyrank(call.key, 0, -_MAX_JOBS - 1)
            pipe.expire(call.key, _WINDOW_SECONDS)
            pipe.execute()

    def _replace(self, call: RepeatableCall, pending: str, made: Sequence[str]) -> None:
        with redis_errors_are_unavailable(), self._connection.pipeline() as pipe:
            pipe.zrem(call.key, pending)
            if made:
                pipe.zadd(call.key, dict.fromkeys(made, time.time()))
                pipe.expire(call.key, _WINDOW_SECONDS)
            pipe.execute()
