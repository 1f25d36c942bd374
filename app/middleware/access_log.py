"""Counts and logs every response, under the template of its route: clients cannot create new metric labels.

Only the method and the path of a request are logged: queries carry signatures, headers keys, bodies prompts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.logs import FOR_MACHINES
from contracts.metrics import Counters

log = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER = "other"
#: What proxies log when the client disconnected before there was a response.
_CLIENT_DISCONNECTED = 499
_FAILED = 500
#: Requested every few seconds by monitoring. That a service is not ready is logged once, when that changes.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_PATH = 200
_JOB = "/v1/jobs/{id}"


class AccessLogMiddleware:
    """ASGI middleware that counts, times and logs responses."""

    def __init__(self, app: ASGIApp, counters: Counters, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._counters = counters
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; pass on anything that is not HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = self._clock(), _CLIENT_DISCONNECTED

        async def send_and_observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._counters.observe("http_request_seconds", self._clock() - started, **_labels(scope))
            await send(message)

        try:
            await self._app(scope, receive, send_and_observe)
        except Exception:
            status = _FAILED  # an outer middleware turns it into a response
            raise
        finally:
            self._counters.count("http_requests", status=str(status), **_labels(scope))
            _log_response(scope, status, self._clock() - started)


def _labels(scope: Scope) -> dict[str, str]:
    return {"route": route_of(scope), "method": method_of(scope)}


def method_of(scope: Scope) -> str:
    """The method of a request; `other` for one that HTTP does not define."""
    method: str = scope["method"]
    return method if method in _METHODS else _OTHER


def route_of(scope: Scope) -> str:
    """The template of the matching route; known once the request has been routed."""
    return getattr(scope.get("route"), "path", _OTHER)


def _log_response(scope: Scope, status: int, seconds: float) -> None:
    route, path = route_of(scope), scope["path"][:_MAX_PATH]
    fields: dict[str, object] = {
        "method": scope["method"],
        "route": route,
        "path": path,
        "status": status,
        "seconds": round(seconds, 4),
    }
    if route.startswith(_JOB):
        fields["job_id"] = scope["path_params"]["id"][:_MAX_PATH]
    # Clients that poll read the same again and again; what changes something, and what was refused, is news.
    is_routine = route in PROBES or (scope["method"] in _READS and status < HTTPStatus.BAD_REQUEST)
    # The line about the job that was accepted says more.
    extra = fields | (FOR_MACHINES if status == HTTPStatus.ACCEPTED else {})
    level = logging.DEBUG if is_routine else logging.INFO
    log.log(level, "%s %s %s", scope["method"], path, status, extra=extra)
