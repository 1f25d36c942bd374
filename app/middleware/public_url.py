"""Serves the application at its public URL: below that URL's path, and with redirects that lead to it.

A proxy may remove the path prefix from requests, or leave it. Knows no route.
"""

from __future__ import annotations

from starlette.datastructures import URL, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class PublicUrlMiddleware:
    """ASGI middleware that puts the URL's path into `root_path`, from which `/docs` and the document take it."""

    def __init__(self, app: ASGIApp, url: str | None) -> None:
        """`url` is without a slash at its end; None: requests name the service, and nothing is changed."""
        self._app = app
        self._url = url
        self._prefix = "" if url is None else URL(url).path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; pass on anything that is not HTTP."""
        url = self._url
        if scope["type"] != "http" or url is None:
            await self._app(scope, receive, send)
            return
        scope["root_path"] = self._prefix
        if not f"{scope['path']}/".startswith(f"{self._prefix}/"):
            scope["path"] = self._prefix + scope["path"]
        own = str(URL(scope=scope).replace(path=self._prefix, query="", fragment=""))

        async def send_publicly(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                location = headers.get("Location", "")
                # The framework's redirects name the host and the scheme by which the proxy addresses the service.
                if location.startswith(f"{own}/"):
                    headers["Location"] = url + location.removeprefix(own)
            await send(message)

        await self._app(scope, receive, send_publicly)


def path_in_api(scope: Scope) -> str:
    """The path of a request below the prefix, as routes name it."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(prefix) if f"{path}/".startswith(f"{prefix}/") else path
