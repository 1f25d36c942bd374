"""One HTTP POST to an address that a client named: what was checked is what is connected to. Follows no redirect,
reads no body of the answer, and keeps no connection, since connections of two names to one address must not mix.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from contracts.outbound.addresses import Address, Destination, read_destination, resolve
from contracts.settings import OutboundSettings


@dataclass(frozen=True)
class Answer:
    """What a receiver said.

    Attributes:
        retry_after_seconds: where it says when to come again.
    """

    status_code: int
    retry_after_seconds: float | None


class Poster:
    """Posts to receivers. For use in one event loop."""

    def __init__(self, rules: OutboundSettings, timeout_seconds: float) -> None:
        self._rules = rules
        self._timeout_seconds = timeout_seconds
        # The usual certificates, and SSL_CERT_FILE; no proxy, which would resolve the name once more.
        context: ssl.SSLContext = httpx.create_ssl_context()
        self._client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send it to the first of the checked addresses that can be connected to.

        Raises:
            DestinationRefused, DestinationUnknown: it must not, or cannot, be connected to.
            TimeoutError: there was no answer in time, however slowly one came.
            httpx.TransportError: the connection, TLS or HTTP failed.
        """
        async with asyncio.timeout(self._timeout_seconds):
            destination = read_destination(url, self._rules)
            addresses = await asyncio.to_thread(resolve, destination, self._rules)
            for address in addresses:
                try:
                    return await self._post_to(destination, address, body, headers)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if address == addresses[-1]:
                        raise
        raise AssertionError("a name that was resolved has an address")

    async def _post_to(
        self, destination: Destination, address: Address, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        request = self._client.stream(
            "POST",
            destination.pinned(address),
            content=body,
            headers={**headers, "Host": destination.authority},
            extensions={"sni_hostname": destination.host},
        )
        async with request as response:
            return Answer(response.status_code, _read_retry_after(response.headers.get("retry-after", "")))

    async def close(self) -> None:
        """Give what is open back."""
        await self._client.aclose()


def _read_retry_after(text: str) -> float | None:
    """Seconds, said as such or as a time; None where it is neither."""
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
