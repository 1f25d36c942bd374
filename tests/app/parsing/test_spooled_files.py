"""Large files in bodies: on disk during the request, never whole in memory."""

from __future__ import annotations

import asyncio
import resource
import tracemalloc
from typing import Any

import pytest
from fastapi import Request

from app.errors import BodyTimeout, BodyTooLarge
from app.parsing.byte_budget import ByteBudget, Reservation
from app.parsing.spooled_files import SpooledFile, spool_file
from contracts.errors import StorageFull

CHUNK, COUNT = 2**18, 128
FORM_HEAD = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.safetensors"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)
FORM_END = b'\r\n--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nmine\r\n--x--\r\n'


def _request(kind: str, *chunks: bytes, pause_seconds: float = 0.0) -> Request:
    """A request whose body arrives in these chunks."""
    left = list(chunks)

    async def receive() -> Any:
        await asyncio.sleep(pause_seconds)
        body = left.pop(0) if left else b""
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    headers = [(b"content-type", kind.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


def _reservation() -> Reservation:
    return Reservation(ByteBudget(2**30, 2**30), "local")


def _spool(request: Request, max_bytes: int = 2**30, timeout_seconds: float = 30.0) -> tuple[SpooledFile, int]:
    """Spool the body; returns the file, which is deleted afterwards, and its size."""

    async def run() -> tuple[SpooledFile, int]:
        async with spool_file(request, max_bytes, timeout_seconds, _reservation()) as file:
            return file, file.path.stat().st_size

    file, size = asyncio.run(run())
    assert not file.path.exists()
    return file, size


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data; boundary=x"])
def test_a_large_file_is_never_whole_in_memory(kind: str) -> None:
    piece = bytes(CHUNK)
    body = [piece] * COUNT if kind.startswith("app") else [FORM_HEAD, *[piece] * COUNT, FORM_END]
    tracemalloc.start()
    try:
        file, size = _spool(_request(kind, *body))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == CHUNK * COUNT
    assert peak < 16 * CHUNK
    assert dict(file.fields) == ({"name": "mine"} if "form" in kind else {})
    assert file.filename == ("a.safetensors" if "form" in kind else "")


def test_the_file_has_the_bytes_received() -> None:
    async def run() -> bytes:
        async with spool_file(_request("", b"one", b"", b"two"), 100, 1.0, _reservation()) as file:
            return await asyncio.to_thread(file.path.read_bytes)

    assert asyncio.run(run()) == b"onetwo"


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data; boundary=x"])
def test_a_body_over_the_limit_is_refused(kind: str) -> None:
    body = [bytes(CHUNK)] * 4 if kind.startswith("app") else [FORM_HEAD, *[bytes(CHUNK)] * 4, FORM_END]
    with pytest.raises(BodyTooLarge):
        _spool(_request(kind, *body), max_bytes=2 * CHUNK)


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data; boundary=x"])
def test_a_body_for_which_there_is_no_space_is_refused_as_such(kind: str) -> None:
    body = [bytes(CHUNK)] * 16 if kind.startswith("app") else [FORM_HEAD, *[bytes(CHUNK)] * 16, FORM_END]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * CHUNK, before[1]))  # a full disk, for this process
    try:
        with pytest.raises(StorageFull, match="no space"):
            _spool(_request(kind, *body))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_body_that_arrives_too_slowly_is_refused() -> None:
    with pytest.raises(BodyTimeout):
        _spool(_request("", *[b"x"] * 50, pause_seconds=0.05), timeout_seconds=0.2)
