"""While Redis is down the API answers 503 quickly; it recovers by itself. Stops and starts a real server."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from cli.supervisor.redis_server import RedisServer
from contracts.settings import SharedSettings
from tests.support.images import encode_solid

JOB = {"prompt": "a red circle"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", fsync="always")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: RedisServer, tmp_path: Path) -> Iterator[TestClient]:
    settings = ApiSettings(shared=SharedSettings(redis_url=server.url, data=tmp_path))
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def calls(client: TestClient, id: str) -> list[Any]:
    return [
        lambda: client.post("/v1/txt2img", json=JOB),
        lambda: client.get(f"/v1/jobs/{id}"),
        lambda: client.post(f"/v1/jobs/{id}/cancel"),
        lambda: client.get(f"/v1/jobs/{id}/images/0"),
        lambda: client.post(
            "/v1/uploads", content=encode_solid("RGB", (64, 64), "red"), headers={"Content-Type": "image/png"}
        ),
        lambda: client.get("/v1/models"),
        lambda: client.get("/v1/workers"),
        lambda: client.get("/readyz"),
    ]


def test_every_call_answers_503_while_redis_is_down_and_works_again_afterwards(
    client: TestClient, server: RedisServer
) -> None:
    id = client.post("/v1/txt2img", json=JOB).json()["id"]
    server.kill()
    for call in calls(client, id):
        response = call()
        assert response.status_code == 503, response.request.url
        assert int(response.headers["Retry-After"]) > 0
        assert response.json()["code"] in ("unavailable", "not_ready")
    assert client.get("/healthz").status_code == 200

    server.start()

    assert client.post("/v1/txt2img", json=JOB).status_code == 202
    for _ in range(10):  # on every pooled connection
        assert client.get("/v1/models").status_code == 200


def test_an_accepted_job_survives_a_restart_of_redis(client: TestClient, server: RedisServer) -> None:
    id = client.post("/v1/txt2img", json=JOB).json()["id"]
    server.kill()
    server.start()

    assert client.get(f"/v1/jobs/{id}").json()["status"] == "queued"


def test_readiness_names_redis(client: TestClient, server: RedisServer) -> None:
    server.kill()

    fields = [entry["field"] for entry in client.get("/readyz").json()["errors"]]

    assert fields == ["redis"]


def test_the_api_starts_while_redis_is_down(tmp_path: Path) -> None:
    shared = SharedSettings(redis_url=f"unix://{tmp_path}/none.sock", data=tmp_path)
    with TestClient(create_app(ApiSettings(shared=shared))) as client:
        assert client.get("/healthz").status_code == 200
        assert client.post("/v1/txt2img", json=JOB).status_code == 503


def test_a_redis_that_hangs_counts_as_unavailable(client: TestClient, server: RedisServer) -> None:
    assert client.get("/v1/workers").status_code == 200
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        response = client.get("/v1/workers")  # answers while Redis still hangs
    finally:
        server.process.send_signal(signal.SIGCONT)

    assert response.status_code == 503
    assert client.get("/v1/workers").status_code == 200
