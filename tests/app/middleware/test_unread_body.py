"""What is still arriving when a response starts is read if it is short, and cut off otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from app.middleware import unread_body
from app.middleware.unread_body import UnreadBodyMiddleware


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers without reading."""
    await PlainTextResponse("no", 401)(scope, receive, send)


def respond(chunks: AsyncIterator[bytes], **headers: str) -> tuple[dict[bytes, bytes], int]:
    """The headers of the response to a body in these chunks, and how many of them were read."""
    taken, started = 0, {}

    async def receive() -> Message:
        nonlocal taken
        chunk = await anext(chunks, None)
        taken += chunk is not None
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: Message) -> None:
        started.update(message.get("headers", ()))

    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "headers": fields}
    asyncio.run(UnreadBodyMiddleware(refuse)(scope, receive, send))
    return started, taken


async def body(count: int, pause_seconds: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(count):
        await asyncio.sleep(pause_seconds)
        yield b"x" * 100


def test_a_short_rest_is_read_and_the_connection_stays() -> None:
    headers, taken = respond(body(10), content_length="1000")

    assert (taken, headers.get(b"connection")) == (10, None)


def test_a_request_without_a_body_is_not_waited_for() -> None:
    assert respond(body(10), content_length="0")[1] == 0


@pytest.mark.parametrize(
    "headers", [{"content_length": "999999999"}, {"content_length": "9", "expect": "100-continue"}]
)
def test_a_long_rest_or_one_that_was_not_asked_for_is_not_read(headers: dict[str, str]) -> None:
    answer, taken = respond(body(10), **headers)

    assert (taken, answer[b"connection"]) == (0, b"close")


def test_a_rest_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread_body, "_MAX_BYTES", 1000)
    answer, taken = respond(body(10**9), transfer_encoding="chunked")

    assert (taken, answer[b"connection"]) == (11, b"close")


def test_a_slow_rest_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread_body, "_MAX_SECONDS", 0.05)
    answer, _ = respond(body(10, pause_seconds=60), content_length="1000")

    assert answer[b"connection"] == b"close"
