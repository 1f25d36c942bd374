"""Connections of hostile clients end, and leave room for honest ones: raw sockets to the API as a process."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from redis import Redis

from cli.supervisor.redis_server import RedisServer
from tests.support.api_process import api_process

HEADER = b"POST /v1/txt2img HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
CONNECTIONS = 8
#: The real time limits are shortened, so that a test does not wait for them; a test fails when nothing happens.
TIMEOUT_SECONDS = 30.0


@pytest.fixture(scope="module")
def address(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of an API with few connections and short time limits."""
    limits = {
        "DARKROOM_API_MAX_CONNECTIONS": str(CONNECTIONS),
        "DARKROOM_API_HEADER_TIMEOUT_SECONDS": "1",
        "DARKROOM_API_STALL_SECONDS": "1",
    }
    with Redis.from_url(redis_server.url) as redis:
        redis.flushall()  # an earlier test's keys would close the service
    with api_process(redis_server.url, tmp_path_factory.mktemp("api"), **limits) as (client, _):
        client.get("/healthz")
        yield client.base_url.host, client.base_url.port or 0


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=TIMEOUT_SECONDS)


def read_all(connection: socket.socket) -> bytes:
    """What the service sends until it closes the connection."""
    received = b""
    try:
        while data := connection.recv(65_536):
            received += data
    except ConnectionResetError:
        pass
    return received


def answer(address: tuple[str, int], request: bytes) -> bytes:
    """What the service sends in answer to these bytes until it closes the connection."""
    with connect(address) as connection:
        connection.sendall(request)
        return read_all(connection)


@pytest.mark.parametrize("sent", [b"", b"GET /heal", HEADER], ids=["nothing", "request line", "fields"])
def test_a_header_that_does_not_arrive_ends_the_connection(address: tuple[str, int], sent: bytes) -> None:
    received = answer(address, sent)

    assert received.startswith(b"HTTP/1.1 408 ") if sent else received == b""


def test_bytes_that_trickle_in_do_not_prolong_a_header(address: tuple[str, int]) -> None:
    with connect(address) as connection:
        connection.settimeout(0.2)
        received = b""
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        for _ in range(int(TIMEOUT_SECONDS / 0.2)):
            try:
                received = connection.recv(100)
                break
            except TimeoutError:
                connection.sendall(b"x")

    assert received.startswith(b"HTTP/1.1 408 ")


def test_the_second_header_of_a_connection_ends_it_too(address: tuple[str, int]) -> None:
    with connect(address) as connection:
        connection.sendall(HEALTH)
        assert connection.recv(1) == b"H"
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")

        assert b"HTTP/1.1 408 " in read_all(connection)


def test_half_sent_headers_do_not_keep_honest_clients_out(address: tuple[str, int]) -> None:
    with ExitStack() as stack:
        for _ in range(3 * CONNECTIONS):
            stack.enter_context(connect(address)).sendall(b"GET / HTTP/1.1\r\n")
        with connect(address) as honest:
            honest.sendall(HEALTH)

            assert honest.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_more_requests_than_connections_are_refused_with_a_time_to_retry(address: tuple[str, int]) -> None:
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            # Each has sent its header, so it is at work until its body arrives.
            busy = stack.enter_context(connect(address))
            busy.sendall(HEADER + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n")
            assert busy.recv(100).startswith(b"HTTP/1.1 100 ")
        received = answer(address, b"")

    assert received.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 2\r\n" in received
    assert b'"status": 503' in received


CHUNK = b"1\r\nx\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEADER + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HEALTH,
        HEADER + b"Transfer-Encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n" + HEALTH,
        HEADER + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + HEALTH,
        HEADER + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}" + HEALTH,
        HEADER + b"Content-Length: 2, 2\r\n\r\n{}" + HEALTH,
        HEADER + b"Content-Length : 2\r\n\r\n{}" + HEALTH,
        HEADER + b"Content-Length: +2\r\n\r\n{}" + HEALTH,
        HEADER + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HEALTH,
        HEADER + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HEALTH,
        HEADER + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HEALTH,
        HEADER + b"X: a\r\n\tContent-Length: 2\r\n\r\n{}" + HEALTH,
        HEADER + b"X: a\nContent-Length: 2\r\n\r\n{}" + HEALTH,
        HEADER.replace(b"\r\n", b"\n") + b"Content-Length: 2\n\n{}" + HEALTH,
        HEADER.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HEALTH,
        HEADER + b"Transfer-Encoding: chunked\r\n\r\n" + 5000 * CHUNK + b"0\r\n\r\n" + HEALTH,
    ],
    ids=[
        "length and encoding",
        "encoding and length",
        "length twice",
        "two lengths",
        "list of lengths",
        "space before the colon",
        "sign",
        "two encodings",
        "unknown encoding",
        "folded encoding",
        "folded length",
        "bare line feed",
        "bare line feeds",
        "encoding in HTTP/1.0",
        "chunks of less than 64 bytes",
    ],
)
def test_a_request_whose_end_is_ambiguous_is_refused_and_what_follows_it_is_not_read(
    address: tuple[str, int], request_bytes: bytes
) -> None:
    received = answer(address, request_bytes)

    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 1


def test_ordinary_requests_in_a_row_are_answered_on_one_connection(address: tuple[str, int]) -> None:
    chunked = HEADER + b"Transfer-Encoding: chunked\r\n\r\n" + 500 * CHUNK + b"0\r\n\r\n"
    received = answer(
        address, HEALTH + chunked + HEALTH + HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    )

    assert re.findall(rb"HTTP/1\.1 (\d+) ", received) == [b"200", b"400", b"200", b"200"]


def test_a_refused_body_that_never_comes_does_not_hold_its_connection(address: tuple[str, int]) -> None:
    received = answer(address, b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\nx")

    assert received.startswith(b"HTTP/1.1 404 ")
    assert b"connection: close" in received


def test_a_client_that_does_not_read_its_answers_is_disconnected(address: tuple[str, int]) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(address)
        document = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            connection.sendall(document * 100_000)
