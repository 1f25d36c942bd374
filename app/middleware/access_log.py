"""Counts and logs every answer: by its route's template, not by its path, so that no client can make up labels.

Of a request no more is logged than its method and path: queries carry signatures, headers keys, bodies prompts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.metrics import Counters

log = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER = "other"
#: What proxies write when the client left before there was an answer.
_CLIENT_LEFT = 499
_FAILED = 500
#: Asked every few seconds by machines; worth a line only when something is wrong.
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_MAX_PATH = 200
_JOB = "/v1/jobs/{id}"


class AccessLogMiddleware:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, tally: Counters, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._tally = tally
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or anything else that passes by."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = self._clock(), _CLIENT_LEFT

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._tally.observe("http_request_seconds", self._clock() - begun, **_labels(scope))
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            status = _FAILED  # what handles it, and tells the client, stands further out
            raise
        finally:
            self._tally.count("http_requests", status=str(status), **_labels(scope))
            _log_answer(scope, status, self._clock() - begun)


def _labels(scope: Scope) -> dict[str, str]:
    method = scope["method"]
    return {"route": _route_of(scope), "method": method if method in _METHODS else _OTHER}


def _route_of(scope: Scope) -> str:
    """The template of the route that was found; known once the request has been routed."""
    return getattr(scope.get("route"), "path", _OTHER)


def _log_answer(scope: Scope, status: int, seconds: float) -> None:
    route, path = _route_of(scope), scope["path"][:_MAX_PATH]
    about: dict[str, object] = {
        "method": scope["method"],
        "route": route,
        "path": path,
        "status": status,
        "seconds": round(seconds, 4),
    }
    if route.startswith(_JOB):
        about["job_id"] = scope["path_params"]["id"][:_MAX_PATH]
    level = logging.DEBUG if route in _PROBES and status < _FAILED else logging.INFO
    log.log(level, "%s %s %s", scope["method"], path, status, extra=about)
