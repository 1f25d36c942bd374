"""Gives each request an id, the client's own where it sends a plain one, and echoes it on the answer."""

from __future__ import annotations

import re
import secrets

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts import logs

HEADER = "X-Request-ID"
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestIdMiddleware:
    """ASGI middleware; the id lies in the request's state."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or anything else that passes by."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get(HEADER, "")
        request_id = asked if _PLAIN.fullmatch(asked) else secrets.token_hex(8)
        # A new dict: the lifespan's state is shared by all requests.
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}

        # For good: the server's own lines on this request come after us.
        logs.bind(request_id=request_id)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


def request_id_of(request: Request) -> str:
    """The id of this request."""
    return str(request.state.request_id)
