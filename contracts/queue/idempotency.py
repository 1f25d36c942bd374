"""Idempotency keys: a call that a client repeats, because an answer was lost, makes nothing twice. Knows no HTTP.

A call holds its key under a short lease while it is being accepted, then binds the key to what it made. The script
that queues a job binds the key in the same step. Anything else is bound after it was made, so a process that dies
in between makes it once more when the client repeats the call: making it twice must do no harm.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TypeVar

from redis import Redis

from contracts.errors import Conflict, FieldProblem, InvalidRequest, Unavailable
from contracts.queue.client import IdempotencyHold
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable

Made = TypeVar("Made")

FIELD = "Idempotency-Key"
#: How long a key names what was made.
_TTL_SECONDS = 86_400


@dataclass(frozen=True)
class CallIdentity:
    """What makes two calls the same.

    Attributes:
        key: the client's own, unique to its owner.
        target: the method and path.
        body: as it was received.
    """

    owner: str
    key: str
    target: str
    body: bytes = field(repr=False)

    def fingerprint(self) -> str:
        """Equal for equal calls."""
        return hashlib.sha256(self.target.encode() + b"\0" + self.body).hexdigest()

    def redis_key(self) -> str:
        """The Redis key; the client's is hashed, since it may hold any characters."""
        return keys.IDEMPOTENCY + f"{self.owner}:{hashlib.sha256(self.key.encode()).hexdigest()}"


class Idempotency:
    """The idempotency keys of all calls."""

    def __init__(self, connection: Redis, lease_seconds: float) -> None:
        """`connection` decodes responses; `lease_seconds` is longer than accepting any call should take."""
        self._lease_seconds = lease_seconds
        self._scripts = Scripts(connection)

    def run(
        self,
        call: CallIdentity | None,
        make: Callable[[IdempotencyHold | None], Made],
        find: Callable[[str], Made],
        id_of: Callable[[Made], str] | None = None,
    ) -> tuple[Made, bool]:
        """Make what a call asks for, or find what the same call made before; returns it, and whether it was found.

        Args:
            call: None where the client sent no key: `make` then runs each time.
            make: gets the key that the call holds; where it fails, the key is free again.
            find: reads what was made by its id.
            id_of: what to bind the key to; None where `make` gives its hold to `JobQueue.submit`, which binds it.

        Raises:
            Conflict: the same call is being accepted, or was accepted elsewhere while this one took too long.
            InvalidRequest: the key was sent before with another call.
            Unavailable: Redis does not answer.
        """
        if call is None:
            return make(None), False
        hold = self.begin(call)
        if isinstance(hold, str):
            return find(hold), True
        try:
            made = make(hold)
        except BaseException:
            with suppress(Unavailable):  # the lease runs out by itself
                self.release(hold)
            raise
        if id_of is not None:
            self.bind(hold, id_of(made))
        return made, False

    def begin(self, call: CallIdentity) -> IdempotencyHold | str:
        """Take a call's key; returns the hold, or the id of what the same call made before.

        Raises:
            Conflict: the same call is being accepted.
            InvalidRequest: the key was sent before with another call.
            Unavailable: Redis does not answer.
        """
        hold = IdempotencyHold(call.redis_key(), call.fingerprint(), secrets.token_hex(16), _TTL_SECONDS)
        with redis_errors_are_unavailable():
            verdict, *made = self._scripts.run(
                "idempotency_begin",
                key=hold.key,
                fingerprint=hold.fingerprint,
                token=hold.token,
                lease_milliseconds=int(self._lease_seconds * 1000),
            )
        if verdict == "other":
            message = "was already used for a different call or body; use a new key for a new call"
            raise InvalidRequest([FieldProblem(FIELD, message)])
        if verdict == "busy":
            raise Conflict(f"a call with this {FIELD} is being accepted right now; retry in a moment")
        return hold if verdict == "held" else str(made[0])

    def bind(self, hold: IdempotencyHold, id: str) -> None:
        """Let the key name what its call has made.

        Raises:
            Conflict: the key is another call's by now.
            Unavailable: Redis does not answer, and the key may or may not be bound.
        """
        with redis_errors_are_unavailable():
            is_bound = self._scripts.run("idempotency_bind", idempotency=asdict(hold), made=id)
        if not is_bound:
            raise hold.lost()

    def release(self, hold: IdempotencyHold) -> None:
        """Free the key of a call that made nothing; does nothing where it is bound or another call's.

        Raises:
            Unavailable: Redis does not answer; the lease runs out by itself.
        """
        with redis_errors_are_unavailable():
            self._scripts.run("idempotency_release", key=hold.key, token=hold.token)
