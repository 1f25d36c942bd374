"""HTTP to addresses from clients, guarded against SSRF: used for input images and webhooks.

Connects only to checked addresses: no second look-up of the name, no redirects, no proxy. Connections are not kept
alive, because two names may share an address.
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
    """Read the usual certificate authorities, and those of SSL_CERT_FILE; slow."""
    return httpx.create_ssl_context()


class OutboundClient:
    """An HTTP client that obeys the operator's rules for outgoing connections. Belongs to one event loop."""

    def __init__(self, rules: OutboundSettings, timeout_seconds: float, certificates: ssl.SSLContext) -> None:
        """`timeout_seconds` limits a whole exchange, including the response's body."""
        self._rules = rules
        self._timeout_seconds = timeout_seconds
        self._client = httpx.AsyncClient(
            verify=certificates,
            trust_env=False,  # a proxy would resolve the name again
            follow_redirects=False,
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Send a request to the first checked address that accepts a connection; does not read the body.

        Raises:
            DestinationRefused, DestinationUnknown: the address is not allowed, or does not resolve.
            TimeoutError: the block took too long.
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
        """Close all connections."""
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
