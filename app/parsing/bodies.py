"""Reads request bodies with limits on size and time, and unpacks forms. Does not parse JSON."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import MappingProxyType

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.errors import BodyTimeout, BodyTooLarge
from app.middleware.unread_body import declared_bytes
from app.parsing.byte_budget import Reservation
from app.parsing.encodings import open_coding
from contracts.errors import FieldProblem, InvalidRequest, UnreadableBody

#: A body must arrive within this time and a second for each KiB of it, besides the limit of its route.
_PATIENCE_SECONDS, _MIN_BYTES_PER_SECOND = 10.0, 1024
_CHUNK_BYTES = 256 * 2**10
#: Bytes that a multipart body may have in addition to its file.
FORM_OVERHEAD_BYTES = 64 * 2**10


class ReceivedBody:
    """A whole body in memory until it is released: a request may wait for its job long after it was read."""

    def __init__(self, raw: bytes, reservation: Reservation) -> None:
        self.raw = raw
        self._reservation = reservation

    def release(self) -> None:
        """Forget the bytes."""
        self.raw = b""
        self._reservation.release()


async def read_body(request: Request, max_bytes: int, timeout_seconds: float, reservation: Reservation) -> bytes:
    """Read the whole body; never holds more than `max_bytes` of it, nor more than can be reserved.

    Raises:
        BodyTooLarge: by its declared length, or while reading.
        BodyTimeout: it did not arrive in time.
        Busy: too many bytes are reserved.
    """
    received = io.BytesIO()  # which gives away its bytes without a copy
    async with aclosing(stream_body(request, max_bytes, timeout_seconds, reservation)) as body:
        async for chunk in body:
            received.write(chunk)
    return received.getvalue()


async def stream_body(
    request: Request, max_bytes: int, timeout_seconds: float, reservation: Reservation
) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives and is unpacked, up to `max_bytes` of it.

    Raises:
        UnknownCoding, UnreadableBody: it is compressed, with something else than gzip, or is not valid gzip.
        BodyTooLarge, BodyTimeout, Busy: as `read_body` says.
    """
    gunzip, size = open_coding(request.headers), 0
    async with aclosing(_receive(request, max_bytes, timeout_seconds)) as chunks:
        async for chunk in chunks:
            for piece in (chunk,) if gunzip is None else gunzip.feed(chunk):
                size += len(piece)
                if size > max_bytes:
                    unpacked = "" if gunzip is None else " when unpacked"
                    raise BodyTooLarge(f"the body must have at most {max_bytes} bytes{unpacked}")
                reservation.add(len(piece))
                yield piece
                if gunzip is not None:
                    await asyncio.sleep(0)  # other requests go on while a long body is unpacked
    if gunzip is not None:
        gunzip.end()


async def _receive(request: Request, max_bytes: int, timeout_seconds: float) -> AsyncGenerator[bytes, None]:
    """Yield the body as it is sent, up to `max_bytes` of it."""
    declared = declared_bytes(request.headers)
    if declared > max_bytes:
        raise BodyTooLarge(f"the body must have at most {max_bytes} bytes, got {declared}")
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


async def limit_parts(
    request: Request, chunks: AsyncGenerator[bytes, None], max_parts: int
) -> AsyncGenerator[bytes, None]:
    """Pass on the chunks of a form, whose parser is slow where parts begin, unless it has more parts than this.

    Raises:
        UnreadableBody: the boundary occurs more often; or the form does not end with it, so that its parser would
            leave out the last part without a word.
    """
    _, parameters = parse_options_header(request.headers.get("content-type"))
    delimiter = b"\r\n--" + parameters.get(b"boundary", b"")
    closing = delimiter[2:] + b"--"  # no longer than what is carried over from chunk to chunk, and one byte
    tail, count, is_closed = b"", 0, False
    async for chunk in chunks:
        text = tail + chunk
        count += text.count(delimiter)
        if count > max_parts + 1:
            raise UnreadableBody(f"the form has more than {max_parts} parts")
        is_closed = is_closed or closing in text
        tail = text[1 - len(delimiter) :]
        yield chunk
    if not tail:
        raise UnreadableBody("the form is empty: it has no parts")
    if not is_closed:
        shown = closing.decode("latin-1")[:80]
        raise UnreadableBody(f"the form is cut off: it does not end with its closing boundary {shown!r}")


Form = list[tuple[str, str | bytes]]


async def read_form(request: Request, raw: bytes, max_files: int = 8, max_fields: int = 8) -> Form:
    """Parse a multipart body that was read; return its fields in order, files as bytes.

    Raises:
        UnreadableBody: the body is not multipart, or has more files or fields than allowed.
    """

    async def chunks() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(raw), _CHUNK_BYTES):
            yield raw[start : start + _CHUNK_BYTES]
            await asyncio.sleep(0)  # other requests go on while a large form is parsed

    parts = limit_parts(request, chunks(), max_files + max_fields)
    try:
        form = await MultiPartParser(request.headers, parts, max_files=max_files, max_fields=max_fields).parse()
    except MultiPartException as error:
        raise UnreadableBody(f"the form cannot be read: {error.message}") from None
    try:
        return [
            (name, await value.read() if isinstance(value, UploadFile) else value)
            for name, value in form.multi_items()
        ]
    finally:
        await form.close()


async def unpack_file(
    request: Request, raw: bytes, field: str = "file", neutral: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """Return the one file of a multipart body that was read.

    Args:
        field: name of the file's field.
        neutral: fields without effect that the form may also have, each with its only value.

    Raises:
        UnreadableBody: the body is not multipart.
        InvalidRequest: the form has other fields or several files.
    """
    form = await read_form(request, raw)
    match [(name, value) for name, value in form if neutral.get(name) != value]:
        case [(name, bytes() as file)] if name == field:
            return file
        case fields:
            names = ", ".join(name for name, _ in fields) or "nothing"
            message = f"the form must have one file in the field {field}, and nothing else, got: {names}"
            others = [name for name, _ in fields if name != field]
            wrong = others[0] if 0 < len(others) < len(fields) else field  # the file is there, and more
            raise InvalidRequest([FieldProblem(wrong, message, [field])])
