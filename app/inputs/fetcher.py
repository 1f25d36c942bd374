"""Pictures that requests name by URL, where the operator allows it: bounded in bytes, time and number.

What was checked is what is connected to (`contracts.destinations`). No redirect is followed, and what comes is not
looked at here: the decoder does, as with every picture.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Sequence
from functools import cached_property

import httpx

from contracts.errors import DarkroomError, DestinationRefused, DestinationUnknown, Unavailable
from contracts.outbound.addresses import Address, Destination, read_destination, resolve
from contracts.settings import OutboundSettings

_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "darkroom"}


class NotFetched(DarkroomError):
    """An address that gave no picture; the message completes a sentence about the field."""


class TooMuch(DarkroomError):
    """An answer with more bytes than the bound."""


class Fetcher:
    """Fetches for all requests of one process. Any thread may ask."""

    def __init__(
        self, rules: OutboundSettings, *, max_bytes: int, timeout_seconds: float, concurrency: int
    ) -> None:
        """`timeout_seconds` is for the whole of one picture."""
        self._rules = rules
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._concurrency = concurrency
        self._places = threading.BoundedSemaphore(concurrency)

    def fetch(self, url: str) -> bytes:
        """The bytes at an address.

        Raises:
            NotFetched: it must not or cannot be connected to, or did not answer 200 in time.
            TooMuch: more than the bound; the rest was not read.
            Unavailable: as many pictures as allowed are being fetched.
        """
        # Whoever waits here holds a thread that others need.
        if not self._places.acquire(blocking=False):
            raise Unavailable(f"{self._concurrency} pictures are being fetched; send the request again")
        try:
            return asyncio.run(self._fetch(url))
        except (DestinationRefused, DestinationUnknown) as error:
            raise NotFetched(str(error)) from None
        except TimeoutError:
            raise NotFetched(f"was not fetched within {self._timeout_seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotFetched(f"was not fetched: {error or type(error).__name__}") from None
        finally:
            self._places.release()

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        """The usual ones, and those of SSL_CERT_FILE."""
        return httpx.create_ssl_context()

    async def _fetch(self, url: str) -> bytes:
        async with asyncio.timeout(self._timeout_seconds):
            destination = read_destination(url, self._rules)
            addresses = await asyncio.to_thread(resolve, destination, self._rules)
            async with httpx.AsyncClient(trust_env=False, verify=self._certificates) as client:
                return await self._from_one_of(client, destination, addresses)

    async def _from_one_of(
        self, client: httpx.AsyncClient, destination: Destination, addresses: Sequence[Address]
    ) -> bytes:
        """The first of the checked addresses that can be connected to."""
        for address in addresses[:-1]:
            try:
                return await self._read(client, destination, address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._read(client, destination, addresses[-1])

    async def _read(self, client: httpx.AsyncClient, destination: Destination, address: Address) -> bytes:
        request = client.stream(
            "GET",
            destination.pinned(address),
            headers={**_HEADERS, "Host": destination.authority},
            extensions={"sni_hostname": destination.host},
            follow_redirects=False,
            timeout=self._timeout_seconds,
        )
        async with request as response:
            if response.is_redirect:
                raise NotFetched("is redirected, which is not followed; name the picture's own address")
            if response.status_code != httpx.codes.OK:
                raise NotFetched(f"was not fetched: its server answered {response.status_code}")
            chunks, size = [], 0
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > self._max_bytes:
                    raise TooMuch
                chunks.append(chunk)
        return b"".join(chunks)
