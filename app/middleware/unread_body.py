"""Reads the rest of a body before a response that does not need it, or announces that the connection closes.

A client that is still sending when the connection closes gets a broken pipe instead of the response. So a short
rest is read and discarded; a long or slow one is not waited for (RFC 9112, 9.6). Knows no route.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Longest rest that is read and discarded.
_MAX_BYTES = 128 * 2**20
_MAX_SECONDS = 10.0
#: A client that has sent nothing for this long is waiting for the response itself.
_SILENT_SECONDS = 1.0


def declared_bytes(headers: Headers) -> int:
    """The Content-Length of a request; 0 where it has none, or one that is not a number."""
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


class UnreadBodyMiddleware:
    """ASGI middleware that lets no response start while the body of its request may still arrive."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; pass on anything that is not HTTP, or that has no body."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "transfer-encoding" not in headers and headers.get("content-length", "") in ("", "0"):
            await self._app(scope, receive, send)
            return
        is_complete, received = False, 0
        declared = declared_bytes(headers)

        async def receive_and_observe() -> Message:
            nonlocal is_complete, received
            message = await receive()
            received += len(message.get("body", b""))
            # A client that has gone sends nothing more either.
            is_complete = is_complete or not message.get("more_body", False)
            return message

        async def read_rest() -> None:
            limit = received + _MAX_BYTES
            while not is_complete and received <= limit:
                async with asyncio.timeout(_SILENT_SECONDS):
                    await receive_and_observe()

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_complete:
                # Asking for the body of a client that waits for "100 Continue" would make it send the body.
                if declared - received <= _MAX_BYTES and "expect" not in headers:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_MAX_SECONDS):
                            await read_rest()
                if not is_complete:
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive_and_observe, send_after_body)
