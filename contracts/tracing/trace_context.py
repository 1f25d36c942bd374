"""W3C Trace Context: which trace a request belongs to, read from headers that anybody may send, and written again.

https://www.w3.org/TR/trace-context/. What is not valid is ignored, as the recommendation demands, never refused.
Knows neither HTTP nor OpenTelemetry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

#: Version, trace id, id of the caller's span, flags; later versions may have more behind a dash.
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace_id>[0-9a-f]{32})-(?P<span_id>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-[\x21-\x7e]*)?",
    re.ASCII,
)
#: An entry of `tracestate`: key=value.
_ENTRY = re.compile(
    r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)
_MAX_ENTRIES = 32
#: What is kept of `tracestate`: as much as every participant should pass on. Long entries are dropped first.
_MAX_STATE, _LONG_ENTRY = 512, 128
#: Longer headers are not looked at.
_MAX_HEADER = 8192
_SAMPLED = 0x01


@dataclass(frozen=True)
class TraceContext:
    """A span of a trace, as others name it.

    Attributes:
        trace_id, span_id: 32 and 16 hexadecimal digits in lower case, not all 0.
        flags: 0 to 255; bit 0: whether the caller records the trace.
        state: `tracestate`, which other systems' tools need; empty without one.
    """

    trace_id: str
    span_id: str
    flags: int = 0
    state: str = ""

    @property
    def traceparent(self) -> str:
        """The header that names it, in version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers by which a request carries it."""
        return {TRACEPARENT: self.traceparent} | ({TRACESTATE: self.state} if self.state else {})


def read_trace_context(traceparent: Sequence[str], tracestate: Sequence[str] = ()) -> TraceContext | None:
    """Read the values of both headers; None without a valid `traceparent`, or with more than one.

    A `tracestate` that is not valid is left out, and one that is too long is shortened by whole entries.
    """
    if len(traceparent) != 1 or len(traceparent[0]) > _MAX_HEADER:
        return None
    found = _TRACEPARENT.fullmatch(traceparent[0].strip(" \t"))
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return None
    if not int(found["trace_id"], 16) or not int(found["span_id"], 16):
        return None
    return TraceContext(
        found["trace_id"], found["span_id"], int(found["flags"], 16) & _SAMPLED, _read_state(",".join(tracestate))
    )


def _read_state(text: str) -> str:
    if len(text) > _MAX_HEADER:
        return ""
    entries = [entry for entry in (part.strip(" \t") for part in text.split(",")) if entry]
    keys = {entry.partition("=")[0] for entry in entries}
    if len(entries) > _MAX_ENTRIES or len(keys) < len(entries) or not all(map(_ENTRY.fullmatch, entries)):
        return ""
    if len(",".join(entries)) > _MAX_STATE:
        entries = [entry for entry in entries if len(entry) <= _LONG_ENTRY]
    while len(",".join(entries)) > _MAX_STATE:
        entries.pop()
    return ",".join(entries)
