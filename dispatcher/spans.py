"""The span of one attempt at a webhook, in its job's trace. Has only host and port of the receiver's URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from contracts.outbound.outbox import Message, Outcome
from contracts.tracing.tracing import Attributes, Span, Tracing


@contextmanager
def delivering(tracing: Tracing, message: Message) -> Iterator[Span]:
    """A span of an HTTP client around an attempt."""
    host, _, port = message.site.rpartition(":")
    attributes: Attributes = {
        "http.request.method": "POST",
        "http.request.resend_count": message.attempts,
        "server.address": (host or message.site).strip("[]"),
        "messaging.message.id": message.id,
        "darkroom.job.id": message.record.get("id", ""),
        "darkroom.webhook.event": message.event,
    }
    span = tracing.start("POST webhook", "client", message.trace_context, attributes)
    if port.isdecimal():
        span.add({"server.port": int(port)})
    try:
        yield span
    except BaseException:
        span.fail("cancelled")
        raise
    finally:
        span.end()


def end_delivery(span: Span, outcome: Outcome) -> None:
    """Say what became of the attempt."""
    span.add({"darkroom.webhook.outcome": outcome.next})
    if outcome.status_code is not None:
        span.add({"http.response.status_code": outcome.status_code})
    if outcome.next != "delivered":
        span.fail("no_response" if outcome.status_code is None else str(outcome.status_code))
