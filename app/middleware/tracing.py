"""Gives each request its place in a trace: the client's, where it sends a valid `traceparent`, and a span.

With tracing off, no span is written, and the client's `traceparent` is passed on unchanged. Attributes follow
OpenTelemetry's conventions for HTTP servers, without path and query: a client chooses them, and links are signed.
"""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.access_log import PROBES, method_of, route_of
from contracts import logs
from contracts.tracing.trace_context import TRACEPARENT, TRACESTATE, TraceContext, read_trace_context
from contracts.tracing.tracing import Tracing

_FAILED = 500
#: What a server has not answered since the client disconnected, as proxies call it.
_CLIENT_DISCONNECTED = 499


class TracingMiddleware:
    """ASGI middleware that puts the trace context into the request's state and, if there is one, into the logs."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; pass on anything that is not HTTP, and what monitoring asks every few seconds."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        parent = read_trace_context(headers.getlist(TRACEPARENT), headers.getlist(TRACESTATE))
        method = method_of(scope)
        attributes = {"http.request.method": method, "url.scheme": scope.get("scheme", "http")}
        span = self._tracing.start(method, "server", parent, attributes)
        scope["state"] = {**scope.get("state", {}), "trace_context": span.context}
        if span.context is not None:
            logs.bind(request_id=scope["state"]["request_id"], trace_id=span.context.trace_id)
        status = _CLIENT_DISCONNECTED

        async def send_and_observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_observe)
        except Exception:
            status = _FAILED  # an outer middleware turns it into a response
            raise
        finally:
            span.rename(f"{method} {route_of(scope)}")
            span.add({"http.route": route_of(scope), "http.response.status_code": status})
            if status >= _FAILED:
                span.fail(str(status))
            span.end()


def trace_context_of(request: Request) -> TraceContext | None:
    """This request's place in a trace; None without one."""
    context: TraceContext | None = getattr(request.state, "trace_context", None)
    return context
