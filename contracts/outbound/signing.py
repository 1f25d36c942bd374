"""The secrets that webhooks are signed with, and the signature: Standard Webhooks 1.0, symmetric (`v1`, `whsec_`).

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from redis import Redis

from contracts.errors import SettingsError
from contracts.redis.connection import Scripts
from contracts.settings import SharedSettings

_PREFIX = "whsec_"
_SECRET_BYTES = 32
#: For so long a secret that was replaced signs beside its successor.
OVERLAP_SECONDS = 86_400
#: Whose secret it is: there is one for the whole service.
_SERVICE = "service"


@dataclass(frozen=True)
class Secret:
    """A key of 24 to 64 bytes."""

    key: bytes = field(repr=False)

    @classmethod
    def read(cls, text: str) -> Secret:
        """Read `whsec_` and base64; raises ValueError for anything else."""
        try:
            key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not text.startswith(_PREFIX) or not 24 <= len(key) <= 64:
            raise ValueError("a webhook secret is whsec_ and 24 to 64 bytes in base64")
        return cls(key)

    def write(self) -> str:
        """As receivers are told it."""
        return _PREFIX + base64.b64encode(self.key).decode()


def sign(keys: Sequence[Secret], id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """The headers that prove a message; one signature a secret, so that a receiver may know either."""
    content = b".".join((id.encode(), str(timestamp).encode(), body))
    digests = (hmac.new(secret.key, content, hashlib.sha256).digest() for secret in keys)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


class Secrets:
    """The service's secrets: the one of the settings; else in Redis, made when first asked for, and kept."""

    def __init__(self, connection: Redis, settings: SharedSettings) -> None:
        """`connection` decodes responses.

        Raises:
            SettingsError: the secret of the settings is none.
        """
        self._scripts = Scripts(connection)
        given = settings.webhook_secret
        try:
            self._given = None if given is None else Secret.read(given.get_secret_value())
        except ValueError as error:
            raise SettingsError(f"DARKROOM_WEBHOOK_SECRET: {error}") from None

    def current(self) -> list[Secret]:
        """What to sign with: the newest first. Raises RedisError."""
        return [self._given] if self._given else self._run(replace=False)

    def replace(self) -> Secret:
        """Make a new secret; the one before it goes on beside it for `OVERLAP_SECONDS`. Raises RedisError.

        Raises:
            SettingsError: the settings give the secret.
        """
        if self._given:
            raise SettingsError("DARKROOM_WEBHOOK_SECRET gives the secret; put another there")
        return self._run(replace=True)[0]

    def _run(self, **arguments: Any) -> list[Secret]:
        fresh = Secret(secrets.token_bytes(_SECRET_BYTES)).write()
        found = self._scripts.run(
            "webhook_secrets", owner=_SERVICE, fresh=fresh, overlap_seconds=OVERLAP_SECONDS, **arguments
        )
        return [Secret.read(text) for text in cast("list[str]", found)]
