"""Signed links to images and event streams, for which a browser needs no API key.

A link gives access to one image, or to one job's events, until it expires: its signature is an HMAC over that and
the expiry time, and other parameters are refused. All processes of a service sign with one secret: from the
settings, or generated. The storage keeps a generated one, so that it outlives Redis' data; processes without a
storage get it from Redis. Knows no HTTP.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress

from redis import Redis

from contracts.errors import LinkRefused, NotFound, StorageFull
from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.settings import SharedSettings
from contracts.storage import Storage

#: Where the storage keeps a generated secret. No route reads below this folder.
_KEY = "service/link-secret"
#: Names and values of a URL's query, in order.
Query = Sequence[tuple[str, str]]
_SECONDS = re.compile(r"[1-9][0-9]{0,14}")


class LinkSigner:
    """Signer and verifier of links. Raises Unavailable where the secret is first needed and cannot be read."""

    def __init__(self, connection: Redis, settings: SharedSettings, storage: Storage | None) -> None:
        """`connection` decodes responses; `storage` is None in a process that cannot open it."""
        self._connection = connection
        self._storage = storage
        self._ttl_seconds = settings.link_ttl_seconds
        given = settings.link_secret
        self._given = None if given is None else given.get_secret_value().encode()
        self._secret = self._given

    def prepare(self) -> None:
        """Read the secret now; later calls need neither Redis nor the storage."""
        self._secret = self._given or self._read_secret()

    def require(self) -> None:
        """Raises Unavailable where the secret is not known and cannot be read now."""
        self._current()

    def share(self) -> None:
        """Copy the storage's secret, once it exists, into Redis for processes without a storage.

        Repeated from time to time, since Redis may lose its data.
        """
        if self._given is not None or self._storage is None:
            return
        if self._secret is None:
            try:
                self._secret = self._storage.read(_KEY)
            except NotFound:
                return
        with redis_errors_are_unavailable():
            if self._connection.get(keys.LINK_SECRET) != self._secret.decode():
                self._connection.set(keys.LINK_SECRET, self._secret)

    def sign_image(self, id: str, number: int) -> str:
        """Make the query of a link to a job's image.

        The expiry time is rounded up to a quarter of a link's lifetime, so that a client that asks again gets the
        same link for a while and can use its cached image.
        """
        return self._sign(_image(id, number))

    def sign_events(self, id: str) -> str:
        """Make the query of a link to a job's event stream; its expiry time is rounded as an image's is."""
        return self._sign(_events(id))

    def check_image(self, id: str, number: int, query: Query) -> None:
        """Check the query of a link to a job's image.

        Raises:
            LinkRefused: the signature is wrong, or the link has expired.
        """
        self._check(_image(id, number), query)

    def check_events(self, id: str, query: Query) -> None:
        """Check the query of a link to a job's event stream; raises as `check_image`."""
        self._check(_events(id), query)

    def _sign(self, target: str) -> str:
        step = max(1, self._ttl_seconds // 4)
        expires = str((int(time.time()) // step + 1) * step + self._ttl_seconds)
        return f"expires={expires}&signature={self._signature(target, expires)}"

    def _check(self, target: str, query: Query) -> None:
        if sorted(name for name, _ in query) != ["expires", "signature"]:
            raise LinkRefused(
                "a signed link must have `expires` and `signature` once each, and no other parameters"
            )
        parts = dict(query)
        expires = parts["expires"]
        expected = self._signature(target, expires)
        if not _SECONDS.fullmatch(expires) or not hmac.compare_digest(
            parts["signature"].encode(), expected.encode()
        ):
            raise LinkRefused("the signature does not match this link; get a valid link from the job")
        if int(expires) <= time.time():
            raise LinkRefused("this link has expired; get a new one from the job")

    def _signature(self, target: str, expires: str) -> str:
        digest = hmac.digest(self._current(), f"{target}\n{expires}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _current(self) -> bytes:
        if self._secret is None:
            self.prepare()
        return self._secret or self._read_secret()

    def _read_secret(self) -> bytes:
        if self._storage is None:
            return self._agree()
        try:
            return self._storage.read(_KEY)
        except NotFound:
            secret = self._agree()
        with suppress(StorageFull):  # the next process to start keeps it
            self._storage.write(_KEY, secret)
            return self._storage.read(_KEY)
        return secret

    def _agree(self) -> bytes:
        """The secret in Redis; a new one where it has none."""
        with redis_errors_are_unavailable():
            found = self._connection.get(keys.LINK_SECRET)
            if found is None:
                self._connection.set(keys.LINK_SECRET, secrets.token_hex(32), nx=True)
                found = self._connection.get(keys.LINK_SECRET)
            return str(found).encode()


def _image(id: str, number: int) -> str:
    """What the signature of an image's link names, besides the expiry time. No id has a line break in it."""
    return f"image\n{id}\n{number}"


def _events(id: str) -> str:
    return f"events\n{id}"
