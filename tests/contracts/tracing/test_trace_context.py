"""W3C Trace Context: what is valid is read and written again, and the rest is as if it had not been sent."""

from __future__ import annotations

import pytest

from contracts.tracing.trace_context import TraceContext, read_trace_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"


def test_a_valid_header_is_read_and_written_again() -> None:
    context = read_trace_context([VALID], ["rojo=00f067aa0ba902b7 , congo=t61", "v@x=1"])
    assert context == TraceContext(TRACE, SPAN, 1, "rojo=00f067aa0ba902b7,congo=t61,v@x=1")
    assert context.headers == {"traceparent": VALID, "tracestate": "rojo=00f067aa0ba902b7,congo=t61,v@x=1"}


@pytest.mark.parametrize("text", [f" {VALID} ", f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-more.of-it"])
def test_later_versions_are_read_as_the_first_one(text: str) -> None:
    assert read_trace_context([text]) == TraceContext(TRACE, SPAN, 1)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        [VALID, VALID],
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE.upper()}-{SPAN}-01"],
        [f"{VALID}-more"],
        [f"{VALID}\n"],
        [f"{VALID}\r\nX-Injected: 1"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"00-{TRACE}-{SPAN}-٠١"],
        [f"cc-{TRACE}-{SPAN}-01-{'a' * 10_000}"],
        ["a" * 1_000_000],
    ],
)
def test_what_is_not_valid_is_ignored(headers: list[str]) -> None:
    assert read_trace_context(headers, ["a=1"]) is None


def entries(count: int) -> str:
    return ",".join(f"k{number:02}={'x' * 60}" for number in range(count))


@pytest.mark.parametrize(
    ("sent", "state"),
    [
        ("", ""),
        (",, a=1,, ", "a=1"),
        ("a=1,a=2", ""),
        ("A=1", ""),
        ("a=1\r\nX-Injected: 1", ""),
        ("a=é", ""),
        ("a", ""),
        (",".join(f"k{number}=1" for number in range(33)), ""),
        (f"a={'x' * 256}", f"a={'x' * 256}"),
        (f"a={'x' * 257}", ""),
        (f"a=1,b={'x' * 250},c={'y' * 250},d=2", "a=1,d=2"),  # over 512: the longest ones go first
        (entries(16), entries(7)),  # 7 × 64 bytes and commas: another one would be over 512
        ("a=1," * 4000, ""),
    ],
)  # fmt: skip
def test_a_tracestate_is_bounded_and_an_invalid_one_left_out(sent: str, state: str) -> None:
    context = read_trace_context([VALID], [sent])
    assert context is not None
    assert context.state == state


def test_flags_that_nobody_has_defined_are_not_handed_on() -> None:
    context = read_trace_context([f"00-{TRACE}-{SPAN}-ff"])
    assert context is not None
    assert (context.flags, context.traceparent) == (1, VALID)
