"""Reads request bodies with limits on size and time, and unpacks forms. Does not parse JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.errors import BodyTimeout, BodyTooLarge
from contracts.errors import FieldProblem, InvalidRequest, UnreadableBody

#: A body must arrive within this time and a second for each KiB of it, besides the limit of its route.
_PATIENCE_SECONDS, _MIN_BYTES_PER_SECOND = 10.0, 1024
#: Bytes that a multipart body may have in addition to its file.
FORM_OVERHEAD_BYTES = 64 * 2**10


async def read_body(request: Request, max_bytes: int, timeout_seconds: float) -> bytes:
    """Read the whole body; never holds more than `max_bytes` of it.

    Raises:
        BodyTooLarge: by its declared length, or while reading.
        BodyTimeout: it did not arrive in time.
    """
    chunks = []
    async with aclosing(stream_body(request, max_bytes, timeout_seconds)) as body:
        async for chunk in body:
            chunks.append(chunk)  # noqa: PERF401 - the iterator may raise midway
    return b"".join(chunks)


async def stream_body(request: Request, max_bytes: int, timeout_seconds: float) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives, up to `max_bytes` of it; raises as `read_body`."""
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdecimal() else 0
    if size > max_bytes:
        raise BodyTooLarge(f"the body must have at most {max_bytes} bytes, got {size}")
    size, waited_seconds = 0, 0.0
    clock = asyncio.get_running_loop().time
    async with aclosing(request.stream()) as chunks:
        while True:
            started = clock()
            allowed_seconds = min(timeout_seconds, _PATIENCE_SECONDS + size / _MIN_BYTES_PER_SECOND)
            try:
                # Only the time that the client takes counts, not what is done with what has arrived.
                async with asyncio.timeout(allowed_seconds - waited_seconds):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                message = (
                    f"the body did not arrive in time: {size} bytes in {waited_seconds + clock() - started:.0f} s"
                )
                raise BodyTimeout(f"{message}; at most {timeout_seconds:g} s, and at least 1 KiB/s") from None
            if chunk is None:
                return
            waited_seconds += clock() - started
            size += len(chunk)
            if size > max_bytes:
                raise BodyTooLarge(f"the body must have at most {max_bytes} bytes")
            yield chunk


Form = list[tuple[str, str | bytes]]


async def read_form(request: Request, raw: bytes, max_files: int = 8, max_fields: int = 8) -> Form:
    """Parse a multipart body that was read; return its fields in order, files as bytes.

    Raises:
        UnreadableBody: the body is not multipart, or has more files or fields than allowed.
    """

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield raw

    try:
        form = await MultiPartParser(request.headers, chunks(), max_files=max_files, max_fields=max_fields).parse()
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
    """Return the field `file` of a multipart body that was read.

    Raises:
        UnreadableBody: the body is not multipart.
        InvalidRequest: the form has other fields or several files.
    """
    match await read_form(request, raw):
        case [("file", bytes() as file)]:
            return file
        case fields:
            names = ", ".join(name for name, _ in fields) or "nothing"
            message = f"the form must have one file in the field file, got: {names}"
            raise InvalidRequest([FieldProblem("file", message, ["file"])])
