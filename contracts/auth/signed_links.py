"""Signs links to images, so that a browser needs no key: an HMAC over the job, the image's number and the end.

A link opens one image until a time, and cannot be made to open more: each of its parts is signed, and it may have
no others. Whose the job is need not be, since no id is given twice. All processes of a service sign with one
secret: a setting, or one that the first of them makes in Redis. Knows no HTTP.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence

from redis import Redis

from contracts.errors import LinkRefused
from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.settings import SharedSettings

_SECONDS = re.compile(r"[1-9][0-9]{0,14}")


class LinkSigner:
    """Signs and checks; every method raises Unavailable when it first needs Redis and it does not answer."""

    def __init__(self, connection: Redis, settings: SharedSettings) -> None:
        """`connection` decodes responses."""
        self._connection = connection
        self._ttl_seconds = settings.link_ttl_seconds
        given = settings.link_secret
        self._secret = None if given is None else given.get_secret_value().encode()

    def prepare(self) -> None:
        """Read the secret now; from here on Redis is not needed."""
        self._read_secret()

    def sign(self, id: str, number: int) -> str:
        """The query of a link to a job's image.

        The end is rounded up, to a quarter of a link's life, so that a client that looks again gets the same link
        for a while and keeps its copy of the image.
        """
        step = max(1, self._ttl_seconds // 4)
        expires = str((int(time.time()) // step + 1) * step + self._ttl_seconds)
        return f"expires={expires}&signature={self._signature(id, number, expires)}"

    def check(self, id: str, number: int, query: Sequence[tuple[str, str]]) -> None:
        """Whether a query opens a job's image.

        Raises:
            LinkRefused: it was not signed so, or its time is over.
        """
        if sorted(name for name, _ in query) != ["expires", "signature"]:
            raise LinkRefused("a signed link has `expires` and `signature`, once each, and nothing else")
        parts = dict(query)
        expires = parts["expires"]
        expected = self._signature(id, number, expires)
        if not _SECONDS.fullmatch(expires) or not hmac.compare_digest(
            parts["signature"].encode(), expected.encode()
        ):
            raise LinkRefused("this is no link that this service has signed; its job has one")
        if int(expires) <= time.time():
            raise LinkRefused("this link has expired; its job has a new one")

    def _signature(self, id: str, number: int, expires: str) -> str:
        message = f"image\n{id}\n{number}\n{expires}".encode()
        digest = hmac.digest(self._read_secret(), message, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _read_secret(self) -> bytes:
        if self._secret is None:
            with redis_errors_are_unavailable():
                self._connection.set(keys.LINK_SECRET, secrets.token_hex(32), nx=True)
                self._secret = str(self._connection.get(keys.LINK_SECRET)).encode()
        return self._secret
