"""Compressed bodies: unpacked within the limits of all bodies, or refused with what is accepted."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from starlette.types import Message

from app.errors import BodyTooLarge, Busy
from app.parsing.bodies import read_body, stream_body
from app.parsing.byte_budget import FREE_BYTES, ByteBudget, Reservation
from contracts.errors import UnreadableBody
from tests.support.images import encode_solid

MIB = 2**20
PROMPT = {"prompt": "a red circle"}
IMAGE = encode_solid("RGB", (64, 64), "blue")


def request_of(body: bytes, chunk_bytes: int = 65_536, coding: bytes = b"gzip") -> Request:
    chunks = [body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes)]

    async def receive() -> Message:
        chunk = chunks.pop(0) if chunks else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    return Request({"type": "http", "method": "POST", "headers": [(b"content-encoding", coding)]}, receive)


def reservation(limit_bytes: int = 2**30) -> Reservation:
    return Reservation(ByteBudget(limit_bytes, limit_bytes), "local")


def read(body: bytes, max_bytes: int = 64 * MIB, chunk_bytes: int = 65_536) -> bytes:
    return asyncio.run(read_body(request_of(body, chunk_bytes), max_bytes, 5, reservation()))


@pytest.mark.parametrize("chunk_bytes", [1, 7, 65_536])
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_a_body_is_unpacked_whatever_its_size_and_its_chunks(size: int, chunk_bytes: int) -> None:
    text = (b"0123456789" * (size // 10 + 1))[:size]

    assert read(gzip.compress(text), chunk_bytes=chunk_bytes) == text


def test_a_body_of_several_members_is_unpacked_as_one() -> None:
    assert read(gzip.compress(b"first ") + gzip.compress(b"") + gzip.compress(b"second")) == b"first second"


def test_a_bomb_is_refused_at_the_limit_without_its_memory() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(32)) + packer.flush()
    assert len(bomb) < MIB

    async def drain() -> None:
        async for _ in stream_body(request_of(bomb), 8 * MIB, 5, reservation()):
            pass

    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge, match="when unpacked"):
            asyncio.run(drain())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


def test_unpacked_bytes_count_against_the_memory_for_bodies() -> None:
    body = gzip.compress(bytes(8 * FREE_BYTES))

    with pytest.raises(Busy):
        asyncio.run(read_body(request_of(body), 64 * MIB, 5, reservation(4 * FREE_BYTES)))


def test_empty_members_without_end_are_refused() -> None:
    with pytest.raises(UnreadableBody, match="more than 1000 members"):
        read(gzip.compress(b"") * 1001)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (gzip.compress(b"x" * 1000)[:-1], "it was cut off"),
        (gzip.compress(b"x" * 1000)[:20], "it was cut off"),
        (b"{}", "not the gzip"),
        (gzip.compress(b"x" * 1000) + b"{}", "not the gzip"),
        (gzip.compress(b"x" * 1000)[:-8] + bytes(8), "not the gzip"),
    ],
    # Their bytes hold the time: processes that share the tests out would not agree on the names.
    ids=["cut at its end", "cut in its middle", "no gzip", "more behind it", "wrong checksum"],
)
def test_a_body_that_is_not_whole_gzip_cannot_be_read(body: bytes, message: str) -> None:
    with pytest.raises(UnreadableBody, match=message):
        read(body)


def test_a_compressed_request_makes_a_job(client: TestClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "GZIP"}
    body = gzip.compress(json.dumps(PROMPT).encode())

    response = client.post("/v1/txt2img", content=body, headers=headers)
    upload = client.post(
        "/v1/uploads", content=gzip.compress(IMAGE), headers={**headers, "Content-Type": "image/png"}
    )
    form = client.build_request("POST", "/v1/uploads", files={"file": IMAGE})
    form.headers["Content-Encoding"] = "x-gzip"
    packed = gzip.compress(form.read())
    form_headers = {**form.headers, "Content-Length": str(len(packed))}
    again = client.post("/v1/uploads", content=packed, headers=form_headers)

    assert (response.status_code, upload.status_code, again.status_code) == (202, 201, 200)
    assert upload.json()["id"] == again.json()["id"]


def test_another_coding_is_refused_with_the_one_that_is_accepted(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    for path in ["/v1/txt2img", "/v1/uploads", "/v1/loras", "/v1/images/edits"]:
        for coding in ["br", "zstd", "deflate", "gzip, gzip", "br, gzip"]:
            with subtests.test(path=path, coding=coding):
                kind = "application/octet-stream" if path in ("/v1/uploads", "/v1/loras") else "application/json"
                response = client.post(
                    path, content=b"{}", headers={"Content-Type": kind, "Content-Encoding": coding}
                )

                assert (response.status_code, response.headers["Accept-Encoding"]) == (415, "gzip")
                assert "send it with gzip, or without Content-Encoding" in response.text


def test_a_body_that_names_identity_is_read_as_it_is(client: TestClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "identity"}

    assert client.post("/v1/txt2img", content=json.dumps(PROMPT), headers=headers).status_code == 202
