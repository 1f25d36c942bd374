"""One job for one key: what a client repeats, because an answer was lost, makes nothing twice.

A call holds its key under a short lease while it is being accepted; `submit.lua` binds the key to the job in the
step that makes the job, and only for the call that still holds it, or while nobody does. A process that dies in
between leaves a lease that runs out. What is no job is bound once it is made, so it is made anew after a death in
between: let it be such that this does no harm. Knows no HTTP.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict, dataclass, field

from redis import Redis

from contracts.errors import Conflict, FieldProblem, InvalidRequest
from contracts.queue.client import IdempotencyHold
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable

FIELD = "Idempotency-Key"
#: How long a key names its job.
_KEPT_SECONDS = 86_400


@dataclass(frozen=True)
class Call:
    """What makes two calls the same.

    Attributes:
        key: the client's own.
        target: the method and path.
        body: as it came.
    """

    owner: str
    key: str
    target: str
    body: bytes = field(repr=False)

    def fingerprint(self) -> str:
        """Equal for equal calls."""
        return hashlib.sha256(self.target.encode() + b"\0" + self.body).hexdigest()

    def place(self) -> str:
        """The Redis key; the client's may hold anything."""
        return keys.IDEMPOTENCY + f"{self.owner}:{hashlib.sha256(self.key.encode()).hexdigest()}"


class Idempotency:
    """The keys of all calls."""

    def __init__(self, connection: Redis, lease_seconds: float) -> None:
        """`connection` decodes responses; `lease_seconds` is longer than any acceptance should take."""
        self._lease_seconds = lease_seconds
        self._scripts = Scripts(connection)

    def hold(self, call: Call) -> IdempotencyHold | str:
        """Begin a call.

        Returns:
            What `JobQueue.submit` or `bind` binds; or the id of what the same call made before.

        Raises:
            Conflict: the same call is being accepted at this moment.
            InvalidRequest: the key was another call's.
            Unavailable: Redis does not answer.
        """
        once = IdempotencyHold(call.place(), call.fingerprint(), secrets.token_hex(16), _KEPT_SECONDS)
        with redis_errors_are_unavailable():
            verdict, *made = self._scripts.run(
                "idempotency_begin",
                key=once.key,
                fingerprint=once.fingerprint,
                token=once.token,
                lease_milliseconds=int(self._lease_seconds * 1000),
            )
        if verdict == "other":
            message = "was sent before with another call or another body; a new call needs a new key"
            raise InvalidRequest([FieldProblem(FIELD, message)])
        if verdict == "busy":
            raise Conflict(f"the call with this {FIELD} is being accepted; send it again in a moment")
        return once if verdict == "held" else str(made[0])

    def bind(self, once: IdempotencyHold, made: str) -> None:
        """Let the key name what its call has made.

        Raises:
            Conflict: the key is another call's by now.
            Unavailable: Redis does not answer, and the key may or may not be bound.
        """
        with redis_errors_are_unavailable():
            is_bound = self._scripts.run("idempotency_bind", idempotency=asdict(once), made=made)
        if not is_bound:
            raise Conflict("this took too long, and the same call was sent again meanwhile; that one counts")

    def release(self, once: IdempotencyHold) -> None:
        """Give up a call that made nothing.

        Raises:
            Unavailable: Redis does not answer; the lease runs out by itself.
        """
        with redis_errors_are_unavailable():
            self._scripts.run("idempotency_release", key=once.key, token=once.token)
