"""Signatures of webhooks and their secrets: Standard Webhooks 1.0, symmetric (`v1`, `whsec_`).

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
#: How long a replaced secret still signs, together with its successor.
OVERLAP_SECONDS = 86_400
#: The owner of the secrets: they belong to the service as a whole.
_SERVICE = "service"


@dataclass(frozen=True)
class Secret:
    """A signing key of 24 to 64 bytes."""

    key: bytes = field(repr=False)

    @classmethod
    def read(cls, text: str) -> Secret:
        """Read a secret from `whsec_` and base64; raises ValueError for any other text."""
        try:
            key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not text.startswith(_PREFIX) or not 24 <= len(key) <= 64:
            raise ValueError("a webhook secret must be whsec_ followed by 24 to 64 bytes in base64")
        return cls(key)

    def write(self) -> str:
        """Return the text that receivers are given."""
        return _PREFIX + base64.b64encode(self.key).decode()


def sign(keys: Sequence[Secret], id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """Return the headers that authenticate a message, with one signature for each secret."""
    content = b".".join((id.encode(), str(timestamp).encode(), body))
    digests = (hmac.new(secret.key, content, hashlib.sha256).digest() for secret in keys)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


class Secrets:
    """The service's webhook secrets: from the settings; otherwise from Redis, created when first needed."""

    def __init__(self, connection: Redis, settings: SharedSettings) -> None:
        """`connection` decodes responses.

        Raises:
            SettingsError: the secret in the settings is invalid.
        """
        self._scripts = Scripts(connection)
        text = settings.webhook_secret
        try:
            self._configured = None if text is None else Secret.read(text.get_secret_value())
        except ValueError as error:
            raise SettingsError(f"DARKROOM_WEBHOOK_SECRET: {error}") from None

    def current(self) -> list[Secret]:
        """Return the secrets to sign with, newest first. Raises RedisError."""
        return [self._configured] if self._configured else self._run(replace=False)

    def replace(self) -> Secret:
        """Create a new secret; the former one stays valid for `OVERLAP_SECONDS`.

        Raises:
            SettingsError: the secret comes from the settings.
            RedisError: Redis does not answer.
        """
        if self._configured:
            raise SettingsError("the secret is set by DARKROOM_WEBHOOK_SECRET; replace it there")
        return self._run(replace=True)[0]

    def _run(self, **arguments: Any) -> list[Secret]:
        fresh = Secret(secrets.token_bytes(_SECRET_BYTES)).write()
        found = self._scripts.run(
            "webhook_secrets", owner=_SERVICE, fresh=fresh, overlap_seconds=OVERLAP_SECONDS, **arguments
        )
        return [Secret.read(text) for text in cast("list[str]", found)]
