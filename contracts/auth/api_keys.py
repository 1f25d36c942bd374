"""API keys: their owners, scopes and limits. Knows no HTTP.

A token is `dk_ID_SECRET` and is shown once; a Redis hash holds the SHA-256 of the secret and the rest. A slow hash
would only slow down requests: 256 random bits cannot be guessed. Revoked keys are kept, so that a service that
once had keys never becomes open to everybody.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from redis import Redis

from contracts.errors import NotFound, RateExceeded
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable
from contracts.requests.schema import Priority

_TOKEN = re.compile(r"dk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
#: Resolution of `last_used_at`.
_USED_SECONDS = 60.0

#: The last part of queue names, whose parts are separated by colons.
Owner = Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")]


class Scope(StrEnum):
    """Permission of a key beyond reading its owner's jobs and uploads."""

    GENERATE = "generate"
    ADMIN = "admin"


#: What is counted by day and can be limited.
DailyFigure = Literal["images", "image_steps", "pixels", "device_seconds", "joules"]


class Key(BaseModel):
    """An API key. Times are Unix seconds on Redis' clock.

    Attributes:
        owner: whose jobs and uploads it can access; several keys may share an owner.
        sha256: of the secret.
        calls_per_minute: maximum calls that create something, in any sixty seconds; None: unlimited.
        max_jobs: maximum jobs waiting and running at the same time; None: unlimited.
        per_day: what its jobs may use on one day (UTC), by figure; those left out have no limit.
        highest_priority: the highest priority its jobs may have.
        last_used_at: to the minute.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    name: str = Field(min_length=1, max_length=100)
    owner: Owner
    sha256: str = Field(repr=False)
    scopes: frozenset[Scope] = Field(min_length=1)
    calls_per_minute: int | None = Field(None, ge=1, le=10_000)
    max_jobs: int | None = Field(None, ge=1, le=1_000)
    per_day: dict[DailyFigure, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    highest_priority: Priority = Priority.HIGH
    created_at: float
    revoked_at: float | None = None
    last_used_at: float | None = None

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Key:
        """Read a key from its Redis hash (decoded strings)."""
        lists = {name: json.loads(fields[name]) for name in ("scopes", "per_day") if name in fields}
        return cls.model_validate({**fields, **lists})

    def to_hash(self) -> dict[str, str]:
        """Make its Redis hash."""
        fields = self.model_dump(mode="json", exclude_none=True)
        fields["scopes"] = json.dumps(sorted(self.scopes))
        fields["per_day"] = json.dumps(self.per_day)
        return {name: str(value) for name, value in fields.items()}

    def matches(self, secret: str) -> bool:
        """Whether a secret is this key's, in constant time."""
        return hmac.compare_digest(self.sha256, _digest(secret))


@dataclass(frozen=True)
class Allowance:
    """Remainder of a key's rate limit after a call.

    Attributes:
        limit: maximum calls in any sixty seconds.
        reset_seconds: until the oldest call no longer counts.
    """

    limit: int
    remaining: int
    reset_seconds: float


class ApiKeyStore:
    """The API keys of a service, in Redis."""

    def __init__(self, connection: Redis) -> None:
        """`connection` decodes responses. Every method raises Unavailable when Redis does not answer."""
        self._connection = connection
        self._scripts = Scripts(connection)

    def exist(self) -> bool:
        """Whether any key was ever created."""
        with redis_errors_are_unavailable():
            return bool(self._connection.exists(keys.API_KEYS))

    def create(self, name: str, owner: str | None = None, **limits: Any) -> tuple[Key, str]:
        """Create a key; returns it with its token, which is not stored anywhere.

        Args:
            name: for people to read.
            owner: None: the key's own id, so that it shares nothing with other keys.
            limits: `scopes`, `calls_per_minute`, `max_jobs`, `per_day`, `highest_priority`.

        Raises:
            ValueError: a field is out of range.
        """
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        _, now = self._read(id)
        key = Key(
            id=id, name=name, owner=owner or id, sha256=_digest(secret), created_at=now,
            **{"scopes": {Scope.GENERATE}, **limits},
        )  # fmt: skip
        with redis_errors_are_unavailable(), self._connection.pipeline(transaction=True) as pipe:
            pipe.hset(keys.API_KEY + id, mapping=cast("dict[Any, Any]", key.to_hash()))
            pipe.zadd(keys.API_KEYS, {id: key.created_at})
            pipe.execute()
        return key, f"dk_{id}_{secret}"

    def find_all(self, start: int = 0, count: int | None = None) -> list[Key]:
        """Read keys, oldest first, including revoked ones: all, or `count` of them after the first `start`."""
        last = -1 if count is None else start + count - 1
        with redis_errors_are_unavailable(), self._connection.pipeline(transaction=False) as pipe:
            for id in cast("list[str]", self._connection.zrange(keys.API_KEYS, start, last)):
                pipe.hgetall(keys.API_KEY + id)
            return [Key.from_hash(fields) for fields in pipe.execute()]

    def find(self, id: str) -> Key | None:
        """Read a key, a revoked one too; None where there is none with this id."""
        return self._read(id)[0]

    def revoke(self, id: str) -> Key:
        """Revoke a key; its owner keeps what was created with it. Idempotent.

        Raises:
            NotFound: the key does not exist.
        """
        key, now = self._read(id)
        if key is None:
            raise NotFound("key", id)
        if key.revoked_at is None:
            with redis_errors_are_unavailable():
                self._scripts.run("update_field", key=keys.API_KEY + id, field="revoked_at", value=str(now))
            key = key.model_copy(update={"revoked_at": now})
        return key

    def authenticate(self, token: str) -> Key | None:
        """Find the key of a token; None where the token is wrong or its key revoked."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        key, now = self._read(match[1])
        if key is None or not key.matches(match[2]) or key.revoked_at is not None:
            return None
        if key.last_used_at is None or now - key.last_used_at > _USED_SECONDS:
            with redis_errors_are_unavailable():
                self._scripts.run("update_field", key=keys.API_KEY + key.id, field="last_used_at", value=str(now))
        return key

    def count_call(self, key_id: str, calls_per_minute: int) -> Allowance:
        """Count a call against a key's rate limit, which all processes share.

        Raises:
            RateExceeded: the limit is reached; the call does not count.
        """
        with redis_errors_are_unavailable():
            accepted, remaining, milliseconds = self._scripts.run(
                "rate_limit", key=keys.RATE + key_id, limit=calls_per_minute, call=secrets.token_hex(8)
            )
        if not accepted:
            raise RateExceeded(calls_per_minute, math.ceil(milliseconds / 1000))
        return Allowance(calls_per_minute, remaining, milliseconds / 1000)

    def _read(self, id: str) -> tuple[Key | None, float]:
        """Read a key, and the time on Redis' clock."""
        with redis_errors_are_unavailable(), self._connection.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.API_KEY + id)
            pipe.time()
            fields, (seconds, micros) = pipe.execute()
        return Key.from_hash(fields) if fields else None, seconds + micros / 1e6


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
