"""Size and time limits of bodies, and the file in a form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Request
from starlette.types import Message

from app.errors import BodyTimeout, BodyTooLarge
from app.parsing import bodies
from app.parsing.bodies import read_body, unpack_file
from app.parsing.byte_budget import ByteBudget, Reservation
from contracts.errors import InvalidRequest, UnreadableBody


def request(chunks: AsyncIterator[bytes], **headers: str) -> Request:
    async def receive() -> Message:
        try:
            return {"type": "http.request", "body": await anext(chunks), "more_body": True}
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


def reservation() -> Reservation:
    return Reservation(ByteBudget(2**30, 2**30), "local")


class Body:
    """A body in chunks that counts how many were read."""

    def __init__(self, *chunks: bytes, endless: bool = False) -> None:
        self.chunks, self.endless, self.taken = chunks, endless, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            for chunk in self.chunks:
                self.taken += 1
                yield chunk
            if not self.endless:
                return


def read(body: Body, timeout_seconds: float = 5, **headers: str) -> bytes:
    return asyncio.run(read_body(request(aiter(body), **headers), 10, timeout_seconds, reservation()))


def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert read(Body(b"01234", b"56789")) == b"0123456789"


def test_one_byte_more_is_refused_without_reading_on() -> None:
    body = Body(b"01234", b"567890", b"x")

    with pytest.raises(BodyTooLarge, match="at most 10 bytes"):
        read(body)
    assert body.taken == 2


def test_a_body_that_declares_too_much_is_refused_unread() -> None:
    body = Body(b"x")

    with pytest.raises(BodyTooLarge, match="at most 10 bytes, got 11"):
        read(body, content_length="11")
    assert body.taken == 0


def test_a_length_that_is_not_a_number_is_ignored() -> None:
    assert read(Body(b"x"), content_length="many") == b"x"


def test_a_body_that_does_not_arrive_times_out() -> None:
    class Slow(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.sleep(60)

    with pytest.raises(BodyTimeout, match=r"1 bytes in \d+ s; at most 0\.05 s"):
        read(Slow(), timeout_seconds=0.05)


def test_a_body_that_trickles_times_out_long_before_the_limit_of_its_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Trickle(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)

    monkeypatch.setattr(bodies, "_PATIENCE_SECONDS", 0.1)
    with pytest.raises(BodyTimeout, match="at least 1 KiB/s"):
        asyncio.run(read_body(request(aiter(Trickle())), 2**20, 60, reservation()))


BOUNDARY = {"content_type": "multipart/form-data; boundary=b"}


def part(name: str, content: str, file: str | None = "a.png") -> str:
    filename = f'; filename="{file}"' if file else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n{content}\r\n'


def unpack(form: str, **headers: str) -> bytes:
    return asyncio.run(unpack_file(request(aiter(Body()), **(headers or BOUNDARY)), form.encode()))


def test_the_file_of_a_form_is_unpacked() -> None:
    assert unpack(part("file", "the bytes") + "--b--\r\n") == b"the bytes"


@pytest.mark.parametrize(
    "form",
    [
        part("image", "x"),
        part("file", "x") + part("file", "y"),
        part("file", "x") + part("purpose", "y", file=None),
        part("file", "x", file=None),
        "",
    ],
)
def test_a_form_with_anything_but_one_file_is_refused(form: str) -> None:
    with pytest.raises(InvalidRequest, match=r"(file|purpose): the form must have one file in the field file"):
        unpack(form + "--b--\r\n")


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ("not a form", {}),
        (part("file", "x"), {"content_type": "multipart/form-data"}),
        ("--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", {}),
        ("".join(part("file", "x") for _ in range(9)) + "--b--\r\n", {}),
    ],
)
def test_an_invalid_form_cannot_be_read(form: str, headers: dict[str, Any]) -> None:
    with pytest.raises(UnreadableBody):
        unpack(form, **headers)


@pytest.mark.parametrize(
    "form",
    [
        part("file", "x").removesuffix("\r\n"),
        part("file", "x"),
        part("file", "x") + "--b",
        part("file", "x") + "--b-",
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\nx',
    ],
)
def test_a_form_without_its_closing_boundary_is_called_cut_off(form: str) -> None:
    with pytest.raises(
        UnreadableBody, match="the form is cut off: it does not end with its closing boundary '--b--'"
    ):
        unpack(form)


def test_an_empty_form_is_called_empty() -> None:
    with pytest.raises(UnreadableBody, match="the form is empty"):
        unpack("")
