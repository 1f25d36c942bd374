"""What processes write spans with. `NoTracing` writes none and hands the caller's context on.

Parents are named, never taken from what a thread or task happens to do: jobs share threads. Attributes are ids,
names and numbers; a prompt, a key or a path in one would leave the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from contracts.tracing.trace_context import TraceContext

#: Role of a span, as OpenTelemetry defines it.
SpanKind = Literal["server", "client", "producer", "consumer", "internal"]
Attributes = Mapping[str, str | int | float | bool]


class Span(Protocol):
    """A span that has begun.

    Attributes:
        context: what child spans name as their parent; None outside any trace.
    """

    @property
    def context(self) -> TraceContext | None: ...  # noqa: D102

    def rename(self, name: str) -> None:
        """Give it another name, once more is known."""

    def add(self, attributes: Attributes) -> None:
        """Add attributes."""

    def fail(self, error_type: str) -> None:
        """What it describes has failed, for a reason of this kind: a code or a class, never a message."""

    def end(self, at: float | None = None) -> None:
        """End it, now or at this time (Unix seconds), and have it exported some time later."""


class Tracing(Protocol):
    """Writer of one process's spans. Never raises and never waits; thread-safe."""

    def start(
        self,
        name: str,
        kind: SpanKind,
        parent: TraceContext | None,
        attributes: Attributes,
        at: float | None = None,
    ) -> Span:
        """Begin a span, now or at `at` (Unix seconds); without a parent, it begins a trace."""

    def close(self) -> None:
        """Export what has ended, for a few seconds at most."""


@dataclass(frozen=True)
class _NoSpan:
    context: TraceContext | None

    def rename(self, name: str) -> None: ...

    def add(self, attributes: Attributes) -> None: ...

    def fail(self, error_type: str) -> None: ...

    def end(self, at: float | None = None) -> None: ...


class NoTracing:
    """Tracing that writes no spans; the caller's context is passed on unchanged."""

    def start(
        self,
        name: str,
        kind: SpanKind,
        parent: TraceContext | None,
        attributes: Attributes,
        at: float | None = None,
    ) -> Span:
        """Return a span that leaves no trace."""
        del name, kind, attributes, at
        return _NoSpan(parent)

    def close(self) -> None:
        """Do nothing."""


NO_TRACING: Tracing = NoTracing()
