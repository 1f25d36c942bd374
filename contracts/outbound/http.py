"""HTTP to addresses that clients name, guarded against request forgery (SSRF): used for images and for webhooks.

Connects only to an address that was checked: no second look-up of the name, no redirect, no proxy. Connections are
not kept, since those of two names at one address must not mix.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from contracts.outbound.addresses import Address, Destination, read_destination, resolve
from contracts.settings import OutboundSettings


def trusted_certificates() -> ssl.SSLContext:
    """The usual certificate authorities, and those of SSL_CERT_FILE; slow to read."""
    return httpx.create_ssl_context()


class OutboundClient:
    """An HTTP client that obeys the operator's rules for outgoing connections. Belongs to one event loop."""

    def __init__(self, rules: OutboundSettings, timeout_seconds: float, certificates: ssl.SSLContext) -> None:
        """`timeout_seconds` is for a whole exchange, however slowly its bytes come."""
        self._rules = rules
        self._timeout_seconds = timeout_seconds
        self._client = httpx.AsyncClient(
            verify=certificates,
            trust_env=False,  # a proxy would look the name up once more
            follow_redirects=False,
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Send a request to the first of the checked addresses that accepts a connection; the body is unread.

        Raises:
            DestinationRefused, DestinationUnknown: it must not, or cannot, be connected to.
            TimeoutError: the block was not done in time.
            httpx.HTTPError, httpx.InvalidURL: the connection, TLS or HTTP failed.
        """
        async with asyncio.timeout(self._timeout_seconds):
            destination = read_destination(url, self._rules)
            addresses = await asyncio.to_thread(resolve, destination, self._rules)
            response = await self._send_to_first(destination, addresses, method, headers, content)
            try:
                yield response
            finally:
                await response.aclose()

    async def aclose(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    async def _send_to_first(
        self,
        destination: Destination,
        addresses: list[Address],
        method: str,
        headers: Mapping[str, str],
        content: bytes | None,
    ) -> httpx.Response:
        for address in addresses:
            request = self._client.build_request(
                method,
                destination.pinned(address),
                content=content,
                headers={**headers, "Host": destination.authority},
                extensions={"sni_hostname": destination.host},
            )
            try:
                return await self._client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        raise AssertionError("a resolved name has at least one address")
