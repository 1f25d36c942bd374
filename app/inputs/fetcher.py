"""Fetches the images that requests name by URL, where the operator allows it, limited in bytes, time and number.

What may be connected to is `contracts.outbound`'s business; whether the bytes are an image, the decoder's.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import aclosing
from functools import cached_property

import httpx

from contracts.errors import DarkroomError, DestinationRefused, DestinationUnknown, Unavailable
from contracts.outbound.http import OutboundClient, trusted_certificates
from contracts.settings import OutboundSettings

_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "darkroom"}


class NotFetched(DarkroomError):
    """A URL from which no image could be fetched; the message completes a sentence about the field."""


class TooMuch(DarkroomError):
    """A response with more bytes than allowed."""


class Fetcher:
    """The fetcher of one process; any thread may call it."""

    def __init__(
        self, rules: OutboundSettings, *, max_bytes: int, timeout_seconds: float, concurrency: int
    ) -> None:
        """`timeout_seconds` is for one image, from name look-up to last byte."""
        self._rules = rules
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._concurrency = concurrency
        self._slots = threading.BoundedSemaphore(concurrency)

    def fetch(self, url: str) -> bytes:
        """Fetch the bytes at a URL.

        Raises:
            NotFetched: the URL must not or cannot be connected to, or did not answer 200 in time.
            TooMuch: more bytes than allowed; the rest was not read.
            Unavailable: the maximum number of images is being fetched.
        """
        # Waiting here would hold a thread that other requests need.
        if not self._slots.acquire(blocking=False):
            raise Unavailable(f"{self._concurrency} images are being fetched already; try again shortly")
        try:
            return asyncio.run(self._fetch(url))
        except (DestinationRefused, DestinationUnknown) as error:
            raise NotFetched(str(error)) from None
        except TimeoutError:
            raise NotFetched(f"could not be fetched within {self._timeout_seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotFetched(f"could not be fetched: {error or type(error).__name__}") from None
        finally:
            self._slots.release()

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        return trusted_certificates()

    async def _fetch(self, url: str) -> bytes:
        client = OutboundClient(self._rules, self._timeout_seconds, self._certificates)
        async with aclosing(client), client.stream("GET", url, _HEADERS) as response:
            if response.is_redirect:
                raise NotFetched("redirects, and redirects are not followed; give the image's final URL")
            if response.status_code != httpx.codes.OK:
                raise NotFetched(f"could not be fetched: its server answered {response.status_code}")
            chunks, size = [], 0
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > self._max_bytes:
                    raise TooMuch
                chunks.append(chunk)
        return b"".join(chunks)
