"""Authentication: from a request's credentials to a principal and what it may do. Knows no route.

As long as no API key has ever been made, everybody who reaches a loopback address is the principal `local` and may
do everything. Answers from Redis are cached for a second: polling costs no lookup, and a revoked key stops working
within that second.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi.concurrency import run_in_threadpool

from app.errors import Forbidden, Unauthorized
from contracts.auth.api_keys import ApiKeyStore, DailyFigure, Key, Scope
from contracts.auth.key_requirement import KeyRequirement
from contracts.errors import FieldProblem, InvalidRequest
from contracts.queue.limits import Quota
from contracts.requests.schema import CHOSEN_PRIORITIES, DeliveryFields, Priority

#: A new first key or a revocation takes effect within this time.
_CACHE_SECONDS = 1.0
#: In place of a key's id, which has hexadecimal digits only.
_NO_KEY = "anonymous"


@dataclass(frozen=True)
class Principal:
    """Caller of a request; the default is everyone, while there are no API keys.

    Attributes:
        owner: whose jobs, uploads and LoRAs are visible; those of other owners answer 404.
        key_id: the API key, by which calls and jobs are counted; all callers without one are counted together.
        calls_per_minute: limit on calls that create something; None: no limit.
        max_jobs: limit on jobs that are waiting or running; None: no limit.
        per_day: limits on what its jobs use on one day, as `Key.per_day`.
    """

    owner: str = "local"
    scopes: frozenset[Scope] = frozenset(Scope)
    highest_priority: Priority = Priority.HIGH
    key_id: str = _NO_KEY
    calls_per_minute: int | None = None
    max_jobs: int | None = None
    per_day: Mapping[DailyFigure, int] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, key: Key) -> Principal:
        """The holder of this key."""
        limits = (key.calls_per_minute, key.max_jobs, key.per_day)
        return cls(key.owner, key.scopes, key.highest_priority, key.id, *limits)

    @property
    def has_key(self) -> bool:
        """Whether the request had an API key, and was not served only because there are none."""
        return self.key_id != _NO_KEY

    @property
    def quota(self) -> Quota | None:
        """The limit on this principal's waiting and running jobs."""
        return None if self.max_jobs is None else Quota(self.key_id, self.max_jobs)

    @property
    def is_admin(self) -> bool:
        """Whether the principal may see what concerns other owners."""
        return Scope.ADMIN in self.scopes

    def priority_of(self, request: DeliveryFields) -> Priority:
        """The priority that the request names; without one, normal or the highest that the key allows.

        Raises:
            InvalidRequest: the request names a priority above the key's.
        """
        priorities = list(Priority)
        allowed = priorities[priorities.index(self.highest_priority) :]
        if request.priority in allowed:
            return request.priority
        if "priority" in request.model_fields_set:
            message = f"this API key allows priorities up to {self.highest_priority}, got {request.priority}"
            raise InvalidRequest(
                [FieldProblem("priority", message, [one.value for one in allowed if one in CHOSEN_PRIORITIES])]
            )
        return self.highest_priority

    def require(self, scope: Scope) -> None:
        """Raises Forbidden where the principal lacks the scope."""
        if scope not in self.scopes:
            raise Forbidden(scope)


class Authenticator:
    """A check of credentials against the API keys in Redis, with a short cache."""

    def __init__(self, keys: ApiKeyStore, requirement: KeyRequirement, anonymous: Principal | None) -> None:
        """`anonymous`: everybody, who is served as long as there have never been keys; None: nobody is."""
        self._keys = keys
        self._requirement = requirement
        self._anonymous = anonymous
        self._has_keys_until = (False, 0.0)
        self._refresh: asyncio.Task[bool] | None = None
        self._principals: dict[bytes, tuple[Principal, float]] = {}

    async def authenticate(self, authorization: str | None, *, takes_password: bool = False) -> Principal:
        """The principal with these credentials: the text of the `Authorization` header.

        Args:
            takes_password: whether the API key may also be the password of Basic authentication.

        Raises:
            Unauthorized: no credentials, or an unknown or revoked key.
            Unavailable: Redis does not answer.
        """
        if not await self._has_keys():
            if self._anonymous is not None:
                return self._anonymous
            raise Unauthorized(
                "this service has no API keys yet; its operator creates one with `darkroom keys create`"
            )
        token = read_token(authorization)
        if token is None and takes_password:
            token = read_password(authorization)
        if token is None:
            also = ", or as the password of Basic authentication, with any user name" if takes_password else ""
            raise Unauthorized(f"no API key; send one as `Authorization: Bearer KEY`{also}")
        principal = await self._look_up(token)
        if principal is None:
            raise Unauthorized("the API key is unknown or has been revoked")
        return principal

    async def _has_keys(self) -> bool:
        has_keys, expires = self._has_keys_until
        if time.monotonic() >= expires:
            # One lookup for all requests that arrive meanwhile; a cancelled request does not cancel it.
            if self._refresh is None or self._refresh.done():
                self._refresh = asyncio.create_task(self._read_has_keys())
            has_keys = await asyncio.shield(self._refresh)
        return has_keys

    async def _read_has_keys(self) -> bool:
        has_keys = await run_in_threadpool(self._requirement.read)
        self._has_keys_until = (has_keys, time.monotonic() + _CACHE_SECONDS)
        return has_keys

    async def _look_up(self, token: str) -> Principal | None:
        digest = hashlib.sha256(token.encode()).digest()
        principal, expires = self._principals.get(digest, (None, 0.0))
        if time.monotonic() >= expires:
            key = await run_in_threadpool(self._keys.authenticate, token)
            if key is None:
                self._principals.pop(digest, None)
                return None
            principal = Principal.of(key)
            self._principals[digest] = (principal, time.monotonic() + _CACHE_SECONDS)
        return principal


def read_token(authorization: str | None) -> str | None:
    """The API key in an `Authorization` header; None where there is none."""
    scheme, _, rest = (authorization or "").strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else None


def read_password(authorization: str | None) -> str | None:
    """The password in an `Authorization` header of Basic authentication (RFC 7617); None where there is none."""
    scheme, _, rest = (authorization or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(rest.strip(), validate=True).decode()
    except ValueError:
        return None
    return decoded.partition(":")[2] or None
