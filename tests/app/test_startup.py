"""`python -m app` as a process: its socket, responses over a real connection, shutdown."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.supervisor.redis_server import RedisServer
from tests.support.api_process import api_process
from tests.support.forked_programs import ForkedProgram

HANGING_API = """
import asyncio, gc, sys, time
import app.__main__ as api

startup = api._Server.startup

async def start_and_hang(server, sockets=None):
    await startup(server, sockets)
    print("objects:", len(gc.get_objects()), file=sys.stderr)
    asyncio.get_running_loop().call_later(0.1, time.sleep, 60)

api._Server.startup = start_and_hang
api.main()
"""


def run(**settings: str) -> tuple[int | None, str]:
    """Run the API with settings that it cannot start with; its exit status and what it prints."""
    process = ForkedProgram("app.__main__", os.environ | settings)
    _, error = process.communicate(timeout=60)
    return process.returncode, error


def test_the_service_serves_and_shuts_down_cleanly(redis_url: str, tmp_path: Path) -> None:
    with api_process(redis_url, tmp_path) as (client, process):
        job = client.post("/v1/txt2img", json={"prompt": "a red circle"})
        assert job.status_code == 202
        assert client.get(job.headers["Location"]).json()["status"] == "queued"

        process.send_signal(signal.SIGTERM)

        _, log = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGTERM)
        assert "Traceback" not in log


def test_a_client_that_sends_too_much_can_read_the_response(redis_url: str, tmp_path: Path) -> None:
    with api_process(redis_url, tmp_path, DARKROOM_API_MAX_BODY_BYTES="2048") as (client, _):
        client.get("/healthz")
        for size in (3000, 8_000_000):
            response = client.post("/v1/txt2img", content=b"x" * size)
            assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
        chunked = client.post("/v1/txt2img", content=(b"x" * 65_536 for _ in range(100)))
        assert chunked.status_code == 413


def test_a_body_that_does_not_arrive_times_out(redis_url: str, tmp_path: Path) -> None:
    with api_process(redis_url, tmp_path, DARKROOM_API_UPLOAD_TIMEOUT_SECONDS="0.3") as (client, _):
        address = (client.base_url.host, client.base_url.port or 0)
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(b"POST /v1/txt2img HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            answer = connection.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_one_slow_request_does_not_hold_up_the_others(redis_url: str, tmp_path: Path) -> None:
    with api_process(redis_url, tmp_path, DARKROOM_API_UPLOAD_TIMEOUT_SECONDS="600") as (client, _):
        address = (client.base_url.host, client.base_url.port or 0)
        with socket.create_connection(address, timeout=60) as slow:
            slow.sendall(b"POST /v1/txt2img HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            assert client.get("/healthz").status_code == 200, "the client gives up before the slow one does"


@pytest.fixture(scope="module")
def hung_service(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """The end of a service whose event loop hangs once it has started."""
    settings = {
        "DARKROOM_REDIS_URL": redis_server.url,
        "DARKROOM_DATA": str(tmp_path_factory.mktemp("hung")),
        "DARKROOM_API_PORT": "0",
        "DARKROOM_HANG_SECONDS": "1",
    }
    command = [sys.executable, "-c", HANGING_API]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=60)


def test_a_service_whose_event_loop_hangs_exits(hung_service: subprocess.CompletedProcess[str]) -> None:
    assert hung_service.returncode == 1
    assert "run_forever" in hung_service.stderr, "no traceback of the event loop"


def test_garbage_collections_leave_out_what_a_service_started_with(
    hung_service: subprocess.CompletedProcess[str],
) -> None:
    found = re.search(r"^objects: (\d+)$", hung_service.stderr, re.MULTILINE)
    assert found is not None
    assert int(found[1]) < 20_000, "of 160,000 that modules and routes consist of"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"DARKROOM_API_PORT": "x"}, "DARKROOM_API_PORT: "),
        ({"DARKROOM_LINK_SECRET": "short"}, "DARKROOM_LINK_SECRET: "),
        ({"DARKROOM_CATALOGUE": "/nowhere.toml"}, "/nowhere.toml: catalogue file not found"),
    ],
)
def test_a_service_that_cannot_start_says_why_in_one_line(settings: dict[str, str], line: str) -> None:
    status, error = run(**settings)

    assert status == 1
    assert error.startswith(f"darkroom api: {line}")
    assert len(error.splitlines()) == 1


def test_without_keys_a_public_address_is_refused(redis_url: str) -> None:
    status, error = run(DARKROOM_REDIS_URL=redis_url, DARKROOM_API_HOST="0.0.0.0")

    assert status == os.EX_TEMPFAIL
    assert error.startswith("darkroom api: there are no API keys, so anyone who can reach 0.0.0.0")
    assert "darkroom keys create" in error
    assert len(error.splitlines()) == 1


def test_without_keys_an_inherited_public_socket_is_refused(redis_url: str) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        process = ForkedProgram("app.__main__", os.environ | {"DARKROOM_REDIS_URL": redis_url}, listener)
        _, error = process.communicate(timeout=60)

    assert process.returncode == os.EX_TEMPFAIL
    assert "anyone who can reach 0.0.0.0 could use the service" in error
