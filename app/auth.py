"""Who asks, and what they may: from the credentials of a request to a caller. Knows no route.

Without any key, everybody who reaches a loopback address is the caller `local` and may do all. What the keys say
is remembered for a second, so that a poll costs no look-up and a revocation is soon felt.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool

from contracts.auth.api_keys import ApiKeyStore, Key, Scope
from contracts.errors import DarkroomError, FieldProblem, InvalidRequest
from contracts.queue.client import Quota
from contracts.requests.schema import JobRequest, Priority

#: How long it may take until a new first key, or a revocation, is felt.
_REMEMBER_SECONDS = 1.0


class Unauthorized(DarkroomError):
    """No credentials, or such that open nothing."""


class Forbidden(DarkroomError):
    """The key lacks a scope."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__(f"this API key lacks the scope {scope}")


@dataclass(frozen=True)
class Principal:
    """Who asks; the default is everybody, where there are no keys.

    Attributes:
        owner: whose jobs, uploads and adapters the caller sees; another's are a 404.
        key_id: the API key; None without one.
        calls_per_minute: calls that make something; None: no bound.
        max_jobs: jobs that may wait and run at one time; None: no bound.
    """

    owner: str = "local"
    scopes: frozenset[Scope] = frozenset(Scope)
    highest_priority: Priority = Priority.HIGH
    key_id: str | None = None
    calls_per_minute: int | None = None
    max_jobs: int | None = None

    @classmethod
    def of(cls, key: Key) -> Principal:
        """Whoever holds this key."""
        return cls(key.owner, key.scopes, key.highest_priority, key.id, key.calls_per_minute, key.max_jobs)

    @property
    def quota(self) -> Quota | None:
        """The bound on this caller's jobs that wait and run."""
        if self.key_id is None or self.max_jobs is None:
            return None
        return Quota(self.key_id, self.max_jobs)

    def grant(self, request: JobRequest) -> Priority:
        """The tier in which a job of this caller waits: the one it names; else the usual one, or the best it may.

        Raises:
            InvalidRequest: it names one above the key's.
        """
        tiers = list(Priority)
        allowed = tiers[tiers.index(self.highest_priority) :]
        if request.priority in allowed:
            return request.priority
        if "priority" in request.model_fields_set:
            message = f"this API key's jobs wait as {self.highest_priority} at best"
            raise InvalidRequest([FieldProblem("priority", message, [tier.value for tier in allowed])])
        return self.highest_priority

    def require(self, scope: Scope) -> None:
        """Raises Forbidden where the caller lacks the scope."""
        if scope not in self.scopes:
            raise Forbidden(scope)


class Authenticator:
    """Lets callers in, or says why not."""

    def __init__(self, keys: ApiKeyStore, is_open: bool) -> None:
        """`is_open`: everybody may come in for as long as there are no keys."""
        self._keys = keys
        self._is_open = is_open
        self._guarded_until = (False, 0.0)
        self._known: dict[bytes, tuple[Principal, float]] = {}

    async def admit(self, authorization: str | None) -> Principal:
        """The caller with these credentials, as the header has them.

        Raises:
            Unauthorized: they open nothing.
            Unavailable: Redis does not answer.
        """
        if not await self._is_guarded():
            if self._is_open:
                return Principal()
            raise Unauthorized("this service has no keys yet; its operator makes one with `darkroom keys create`")
        token = read_token(authorization)
        if token is None:
            raise Unauthorized("send an API key: `Authorization: Bearer KEY`")
        caller = await self._look_up(token)
        if caller is None:
            raise Unauthorized("there is no such API key, or it has been revoked")
        return caller

    async def _is_guarded(self) -> bool:
        guarded, until = self._guarded_until
        if time.monotonic() >= until:
            guarded = await run_in_threadpool(self._keys.exist)
            self._guarded_until = (guarded, time.monotonic() + _REMEMBER_SECONDS)
        return guarded

    async def _look_up(self, token: str) -> Principal | None:
        digest = hashlib.sha256(token.encode()).digest()
        caller, until = self._known.get(digest, (None, 0.0))
        if time.monotonic() >= until:
            key = await run_in_threadpool(self._keys.open, token)
            if key is None:
                self._known.pop(digest, None)
                return None
            caller = Principal.of(key)
            self._known[digest] = (caller, time.monotonic() + _REMEMBER_SECONDS)
        return caller


def read_token(authorization: str | None) -> str | None:
    """The API key in an `Authorization` header; None where there is none."""
    scheme, _, rest = (authorization or "").strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else None
