"""Reads request bodies within a byte and a time bound. Does not look into them, except to unpack a form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.errors import BodyTimeout, BodyTooLarge
from contracts.errors import FieldProblem, InvalidRequest, UnreadableBody

#: How much of a body that is too large is read and thrown away, so that a client that is still sending
#: reads the answer instead of a broken connection.
_DRAIN_BYTES = 64 * 2**20
#: What a multipart body may have beside its file.
FORM_OVERHEAD_BYTES = 64 * 2**10


async def read_body(request: Request, max_bytes: int, timeout_seconds: float) -> bytes:
    """The whole body; never holds more than `max_bytes` of it.

    Raises:
        BodyTooLarge: found from the declared length, or while reading.
        BodyTimeout: it was not here in time.
    """
    chunks = []
    async with aclosing(stream_body(request, max_bytes, timeout_seconds)) as body:
        async for chunk in body:
            chunks.append(chunk)  # noqa: PERF401 - it may raise half-way
    return b"".join(chunks)


async def stream_body(request: Request, max_bytes: int, timeout_seconds: float) -> AsyncGenerator[bytes, None]:
    """The body as it comes in, up to `max_bytes` of it; raises as `read_body`, at the latest after its end."""
    too_large = BodyTooLarge(f"the body has more than {max_bytes} bytes")
    length = request.headers.get("content-length", "")
    declared = int(length) if length.isdecimal() else 0
    if declared > max_bytes + _DRAIN_BYTES or (declared > max_bytes and "expect" in request.headers):
        raise too_large
    size = 0
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= max_bytes:
                    yield chunk
                elif size > max_bytes + _DRAIN_BYTES:
                    break
    except TimeoutError:
        raise BodyTimeout(f"the body was not here after {timeout_seconds:g} seconds") from None
    if size > max_bytes:
        raise too_large


Form = list[tuple[str, str | bytes]]


async def read_form(request: Request, raw: bytes, max_files: int = 8, max_fields: int = 8) -> Form:
    """The fields of a multipart body that has been read, in order; files are bytes.

    Raises:
        UnreadableBody: no multipart body, or one with more in it.
    """

    async def once() -> AsyncGenerator[bytes, None]:
        yield raw

    try:
        form = await MultiPartParser(request.headers, once(), max_files=max_files, max_fields=max_fields).parse()
    except MultiPartException as error:
        raise UnreadableBody(error.message) from None
    try:
        return [
            (name, await value.read() if isinstance(value, UploadFile) else value)
            for name, value in form.multi_items()
        ]
    finally:
        await form.close()


async def unpack_file(request: Request, raw: bytes) -> bytes:
    """The one file of a multipart body that has been read; its field is `file`.

    Raises:
        UnreadableBody: no multipart body.
        InvalidRequest: it holds something else.
    """
    match await read_form(request, raw):
        case [("file", bytes() as file)]:
            return file
        case fields:
            names = ", ".join(name for name, _ in fields) or "nothing"
            message = f"the form must hold one file, named file, and it holds: {names}"
            raise InvalidRequest([FieldProblem("file", message, ["file"])])
