"""Spans by OpenTelemetry's SDK, exported over OTLP in the background. Imported only where tracing is on.

Where to, which spans and how many at once is said by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_TRACES_SAMPLER, OTEL_BSP_…), which the SDK reads.
"""

from __future__ import annotations

import threading
from importlib.metadata import PackageNotFoundError, version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, TraceState

from contracts.tracing.trace_context import TraceContext
from contracts.tracing.tracing import Attributes, Span, SpanKind

#: How long a process that ends waits for its last spans to be exported.
_CLOSE_SECONDS = 3.0
_NANOSECONDS = 1_000_000_000
_KINDS = {kind: trace.SpanKind[kind.upper()] for kind in ("server", "client", "producer", "consumer", "internal")}


def exporting(service: str, instance: str | None) -> OpenTelemetryTracing:
    """Export spans to the collector that OpenTelemetry's variables name.

    Raises:
        ValueError: one of these variables cannot be used.
    """
    own = {"service.name": service, "service.version": _version()}
    if instance is not None:
        own["service.instance.id"] = instance
    resource = Resource.create().merge(Resource(own)).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetryTracing(provider)


class OpenTelemetryTracing:
    """Tracing by one provider, which is not made the process's global one: libraries' own spans stay away."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("darkroom", _version())

    def start(
        self,
        name: str,
        kind: SpanKind,
        parent: TraceContext | None,
        attributes: Attributes,
        at: float | None = None,
    ) -> Span:
        """Begin a span; its parent's flags decide whether it is recorded, unless the sampler does."""
        # An empty context, not None: that would be the current one.
        context = trace.set_span_in_context(NonRecordingSpan(_to_library(parent)), Context())
        return _LibrarySpan(
            self._tracer.start_span(name, context, _KINDS[kind], attributes, start_time=_nanoseconds(at))
        )

    def close(self) -> None:
        """Export what has ended; an exporter that does not come to an end is left behind."""
        thread = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        thread.start()
        thread.join(_CLOSE_SECONDS)


class _LibrarySpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def context(self) -> TraceContext | None:
        found = self._span.get_span_context()
        return TraceContext(
            f"{found.trace_id:032x}",
            f"{found.span_id:016x}",
            int(found.trace_flags),
            found.trace_state.to_header(),
        )

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def add(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, error_type: str) -> None:
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self, at: float | None = None) -> None:
        self._span.end(_nanoseconds(at))


def _to_library(context: TraceContext | None) -> SpanContext:
    if context is None:
        return trace.INVALID_SPAN_CONTEXT
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(context.flags),
        trace_state=TraceState.from_header([context.state]),
    )


def _nanoseconds(at: float | None) -> int | None:
    return None if at is None else int(at * _NANOSECONDS)


def _version() -> str:
    try:
        return version("darkroom")
    except PackageNotFoundError:
        return "unknown"
