"""Answers HEAD wherever GET is answered: with the same headers, and no body.

FastAPI's routes accept the methods that they name, and no other. Knows no route.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """ASGI middleware that makes the application answer HEAD as GET, up to the response's headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; pass on anything but HEAD."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        inner, is_ended = {**scope, "method": "GET"}, False

        async def send_headers(message: Message) -> None:
            nonlocal is_ended
            if message["type"] == "http.response.start":
                # What the access log and the handlers of errors look up, once the request is routed.
                scope.update({name: inner[name] for name in ("route", "path_params") if name in inner})
                await send(message)
            elif not is_ended:
                # The first part of an endless stream ends it too: the server then reports a disconnect to it.
                is_ended = True
                await send({"type": "http.response.body", "body": b""})

        await self._app(inner, receive, send_headers)
