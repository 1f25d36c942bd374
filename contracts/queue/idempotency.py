"""Idempotency keys: a call that a client retries, because a response was lost, takes effect once. Knows no HTTP.

A call holds its key under a short lease while it is being accepted, then binds the key to what it created. The
script that queues a job binds the key in the same step. Anything else is bound after it was created; if the
process dies in between, a retry creates it again, so creating it twice must be harmless. For the same reason an
owner's oldest keys may be forgotten where there are too many.
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
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable

Made = TypeVar("Made")

FIELD = "Idempotency-Key"
#: How long a key stays bound.
_TTL_SECONDS = 86_400
#: Keys of one owner that stay bound at one time, without those of jobs: each new one costs the client nothing.
MAX_KEYS = 10_000


@dataclass(frozen=True)
class CallIdentity:
    """Identity of a call; calls with equal identities are the same.

    Attributes:
        key: chosen by the client; scoped to its owner.
        target: the method and path.
        body: as it was received.
    """

    owner: str
    key: str
    target: str
    body: bytes = field(repr=False)

    def fingerprint(self) -> str:
        """A hash of target and body, equal for equal calls."""
        return hashlib.sha256(self.target.encode() + b"\0" + self.body).hexdigest()

    def index(self) -> str:
        """The Redis key of the list of the owner's keys."""
        return keys.OWNER_IDEMPOTENCY + self.owner

    def redis_key(self) -> str:
        """The Redis key; the client's key is hashed, since it may have any characters."""
        return keys.IDEMPOTENCY + f"{self.owner}:{hashlib.sha256(self.key.encode()).hexdigest()}"


@dataclass(frozen=True)
class IdempotencyHold:
    """An idempotency key that one call holds while it is being accepted.

    Attributes:
        key: the Redis key.
        fingerprint: equal for equal calls.
        token: of this call alone, as a fence.
        ttl_seconds: how long the key names what was made.
        index: Redis key of the list of its owner's keys.
    """

    key: str
    fingerprint: str
    token: str
    ttl_seconds: int
    index: str

    def lost(self) -> Conflict:
        """The error for a call that held its key too long, while the same call was sent again."""
        return Conflict("this call took too long and was sent again meanwhile; only the later call counts")


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
        id_of: Callable[[Made], str | None] | None = None,
        *,
        even_if_full: bool = False,
    ) -> tuple[Made, bool]:
        """Run a call, or find what the same call created before; returns it, and whether it was found.

        Args:
            call: None if the client sent no key; then `make` always runs.
            make: is given the hold on the key; if it raises, the key is released.
            find: reads what was created, by its id.
            id_of: the id to bind the key to, or None to release it. No function if `make` passes its
                hold to `JobQueue.submit`, which binds it.
            even_if_full: whether the call frees something, so that it must work while Redis' memory is full.

        Raises:
            Conflict: the same call is being accepted, or was accepted while this one took too long.
            InvalidRequest: the key was used before for a different call.
            Unavailable: Redis does not answer.
        """
        if call is None:
            return make(None), False
        hold = self.begin(call, even_if_full=even_if_full)
        if isinstance(hold, str):
            return find(hold), True
        try:
            made = make(hold)
        except BaseException:
            with suppress(Unavailable):  # the lease runs out by itself
                self.release(hold)
            raise
        if id_of is not None:
            id = id_of(made)
            if id is None:
                self.release(hold)
            else:
                self.bind(hold, id, even_if_full=even_if_full)
        return made, False

    def begin(self, call: CallIdentity, *, even_if_full: bool = False) -> IdempotencyHold | str:
        """Take a call's key; returns the hold, or the id of what the same call created before.

        Raises:
            Conflict: the same call is being accepted.
            InvalidRequest: the key was used before for a different call.
            Unavailable: Redis does not answer.
        """
        hold = IdempotencyHold(
            call.redis_key(), call.fingerprint(), secrets.token_hex(16), _TTL_SECONDS, call.index()
        )
        with redis_errors_are_unavailable():
            verdict, *made = self._scripts.run(
                "idempotency_begin",
                key=hold.key,
                fingerprint=hold.fingerprint,
                token=hold.token,
                lease_milliseconds=int(self._lease_seconds * 1000),
                even_if_full=even_if_full,
            )
        if verdict == "other":
            message = "was already used for a different call or body; use a new key for a new call"
            raise InvalidRequest([FieldProblem(FIELD, message)])
        if verdict == "busy":
            raise Conflict(f"a call with this {FIELD} is being accepted right now; retry shortly")
        return hold if verdict == "held" else str(made[0])

    def bind(self, hold: IdempotencyHold, id: str, *, even_if_full: bool = False) -> None:
        """Bind the key to what its call has created; its owner's oldest ones beyond `MAX_KEYS` are forgotten.

        Raises:
            Conflict: another call has taken the key.
            Unavailable: Redis does not answer, and the key may or may not be bound.
        """
        with redis_errors_are_unavailable():
            is_bound = self._scripts.run(
                "idempotency_bind",
                idempotency=asdict(hold),
                made=id,
                max_keys=MAX_KEYS,
                even_if_full=even_if_full,
            )
        if not is_bound:
            raise hold.lost()

    def release(self, hold: IdempotencyHold) -> None:
        """Release the key of a call that created nothing; does nothing if it is bound, or taken by another call.

        Raises:
            Unavailable: Redis does not answer; the lease runs out by itself.
        """
        with redis_errors_are_unavailable():
            self._scripts.run("idempotency_release", key=hold.key, token=hold.token)
