"""Signatures of webhooks and their secrets: Standard Webhooks 1.0, symmetric (`v1`, `whsec_`).

A symmetric secret that verifies messages can also forge them, so each owner has a secret of its own.

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
from typing import cast

from pydantic import SecretStr
from redis import Redis

from contracts.errors import Conflict, SettingsError
from contracts.redis.connection import Scripts
from contracts.settings import SharedSettings

_PREFIX = "whsec_"
_SECRET_BYTES = 32
#: How long a replaced secret still signs, together with its successor.
OVERLAP_SECONDS = 86_400
#: What an owner's secret is derived from, beside the configured one: the same bytes must never sign anything else.
_PURPOSE = b"darkroom webhook secret\n"


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

    def derive(self, owner: str) -> Secret:
        """Return the secret of one owner, which tells nothing of this one: HMAC-SHA256."""
        return Secret(hmac.digest(self.key, _PURPOSE + owner.encode(), "sha256"))

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
    """The secret of each owner: derived from that of the settings; else from Redis, created when first needed."""

    def __init__(self, connection: Redis, settings: SharedSettings) -> None:
        """`connection` decodes responses.

        Raises:
            SettingsError: a secret in the settings is invalid.
        """
        self._scripts = Scripts(connection)
        self._configured = read_configured(settings)

    def current(self, owner: str) -> list[Secret]:
        """Return the secrets to sign an owner's messages with, newest first. Raises RedisError."""
        return [secret.derive(owner) for secret in self._configured] or self._run(owner, replace=False)

    def replace(self, owner: str) -> Secret:
        """Create a new secret; the one before it stays valid for `OVERLAP_SECONDS`, and no other.

        Raises:
            Conflict: the secrets are derived from that of the settings.
            RedisError: Redis does not answer.
        """
        if self._configured:
            raise Conflict(
                "this service derives its webhook secrets from DARKROOM_WEBHOOK_SECRET; its operator replaces "
                "that, and sets DARKROOM_WEBHOOK_PREVIOUS_SECRET to the former one"
            )
        return self._run(owner, replace=True)[0]

    def _run(self, owner: str, *, replace: bool) -> list[Secret]:
        fresh = Secret(secrets.token_bytes(_SECRET_BYTES)).write()
        found = self._scripts.run(
            "webhook_secrets", owner=owner, fresh=fresh, overlap_seconds=OVERLAP_SECONDS, replace=replace
        )
        return [Secret.read(text) for text in cast("list[str]", found)]


def read_configured(settings: SharedSettings) -> list[Secret]:
    """Return the secrets that owners' secrets are derived from, the current one first; empty where none is set.

    Raises:
        SettingsError: one of them is invalid, or only the previous one is set.
    """
    found = []
    for name in ("webhook_secret", "webhook_previous_secret"):
        text: SecretStr | None = getattr(settings, name)
        if text is None:
            continue
        try:
            found.append(Secret.read(text.get_secret_value()))
        except ValueError as error:
            raise SettingsError(f"DARKROOM_{name.upper()}: {error}") from None
    if found and settings.webhook_secret is None:
        raise SettingsError("DARKROOM_WEBHOOK_PREVIOUS_SECRET: set DARKROOM_WEBHOOK_SECRET, too")
    return found
