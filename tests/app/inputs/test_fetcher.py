"""Images by URL: off by default; limited, checked and pinned when on. Servers and certificates are real."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from fastapi.testclient import TestClient

from app.inputs.decoder import ImageDecoder
from app.main import create_app
from app.settings import ApiSettings
from contracts.queue.client import JobQueue
from contracts.settings import OutboundSettings, SharedSettings
from contracts.storage import Storage
from tests.support.hosts import certify, resolve_as, trust_authority
from tests.support.images import encode_solid, png_header
from tests.support.receiver import Receiver, Reply, receiving
from tests.support.waiting import wait_until

RED = encode_solid("RGB", (64, 96), "red", "JPEG")
Post = Callable[[str], Any]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    return trust_authority(tmp_path, monkeypatch)


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[Receiver]:
    """An https server with a certificate for `localhost`."""
    with receiving(certify(authority, "localhost")) as server:
        yield server


def url_of(server: Receiver, path: str, host: str = "localhost") -> str:
    return f"{server.scheme}://{host}:{server.port}{path}"


@pytest.fixture
def api(settings: SharedSettings, usual_decoder: ImageDecoder) -> Iterator[TestClient]:
    """An API that may fetch from this machine."""
    outbound = OutboundSettings.model_validate({"networks": ["127.0.0.0/8", "::1/128"]})
    api = ApiSettings(
        shared=settings, outbound=outbound, fetch_images=True, fetch_timeout_seconds=2, fetch_concurrency=2
    )
    with TestClient(create_app(api, decoder=usual_decoder), raise_server_exceptions=False) as client:
        yield client


def post(client: TestClient, url: str) -> Any:
    return client.post("/v1/img2img", json={"prompt": "x", "image": url})


def test_an_image_is_fetched_checked_and_stored_by_its_content(
    api: TestClient, server: Receiver, queue: JobQueue, storage: Storage
) -> None:
    server.plans["/cat.jpg"] = [Reply(body=RED, headers={"Content-Type": "text/plain"})]

    answer = post(api, url_of(server, "/cat.jpg?size=l"))

    assert answer.status_code == 202, answer.text
    parameters = queue.fetch(answer.json()["id"]).parameters
    assert storage.find("inputs/") == [parameters.image]
    assert (parameters.width, parameters.height) == (64, 96)
    (request,) = server.received
    assert request.path == "/cat.jpg?size=l"
    assert request.headers["host"] == f"localhost:{server.port}"


def test_nothing_is_fetched_by_default(client: TestClient, server: Receiver) -> None:
    problem = post(client, url_of(server, "/cat.jpg")).json()

    assert (problem["status"], problem["errors"][0]["field"]) == (422, "image")
    assert "URLs are not fetched by this service" in problem["errors"][0]["message"]
    assert not server.received


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        (Reply(404), 422, "answered 404"),
        (Reply(204), 422, "answered 204"),
        (Reply(302, {"Location": "/other"}, RED), 422, "redirects are not followed"),
        (Reply(waits=True), 422, "within 2 s"),
        (Reply(body=RED, pause_seconds=0.1), 422, "within 2 s"),
        (Reply(body=b"not an image"), 415, "not an image"),
        (Reply(body=RED[: len(RED) // 2]), 415, "truncated"),
        (Reply(body=RED, headers={"Content-Length": str(len(RED) + 1)}), 422, "not be fetched"),
        (Reply(body=png_header(20_000, 20_000)), 413, "pixels"),
    ],
)
def test_a_url_without_an_image_is_refused_and_leaves_nothing(
    api: TestClient, server: Receiver, queue: JobQueue, storage: Storage, reply: Reply, status: int, message: str
) -> None:
    server.plans["/cat.jpg"] = [reply]

    problem = post(api, url_of(server, "/cat.jpg")).json()

    assert (problem["status"], problem["errors"][0]["field"]) == (status, "image"), problem
    assert message in problem["errors"][0]["message"]
    assert not server.at("/other")
    assert not storage.find("inputs/")
    assert not queue.connection.exists("darkroom:jobs:local")


def test_more_bytes_than_the_limit_are_not_read(settings: SharedSettings, server: Receiver) -> None:
    outbound = OutboundSettings.model_validate({"networks": ["127.0.0.0/8"]})
    small = ApiSettings(shared=settings, outbound=outbound, fetch_images=True, max_image_bytes=2048)
    server.plans["/endless"] = [Reply(body=b"\0" * 20_000_000)]
    with TestClient(create_app(small)) as client:
        problem = post(client, url_of(server, "/endless", "127.0.0.1")).json()
        assert problem["status"] == 422  # the certificate is for another name
        problem = post(client, url_of(server, "/endless")).json()

    assert (problem["status"], problem["code"]) == (413, "picture_too_large")
    wait_until(lambda: server.cut_off == ["/endless"])


def test_a_certificate_for_another_name_is_refused(
    api: TestClient, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving(certify(authority, "other.example")) as server:
        problem = post(api, url_of(server, "/cat.jpg")).json()

        assert problem["status"] == 422
        assert "certificate" in problem["errors"][0]["message"].lower()
        assert not server.received


@pytest.mark.parametrize(
    "url", ["https://10.0.0.1/", "https://169.254.169.254/latest/", "http://8.8.8.8/", "file:///etc/passwd"]
)
def test_forbidden_addresses_are_refused(api: TestClient, url: str) -> None:
    problem = post(api, url).json()

    assert (problem["status"], problem["errors"][0]["field"]) == (422, "image")


def test_a_name_is_resolved_once_and_the_checked_address_is_used(
    api: TestClient, server: Receiver, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: a second lookup would return another address, so there must be only one."""
    server.plans["/cat.jpg"] = [Reply(body=RED)]
    lookups = resolve_as(monkeypatch, "localhost", ["127.0.0.1"], ["10.0.0.1"])

    assert post(api, url_of(server, "/cat.jpg")).status_code == 202
    assert lookups == ["localhost"]


def test_the_number_of_concurrent_fetches_is_limited(api: TestClient, server: Receiver) -> None:
    server.plans["/slow"] = [Reply(body=RED, waits=True)]
    statuses: list[int] = []
    waiting = [
        threading.Thread(target=lambda: statuses.append(post(api, url_of(server, "/slow")).status_code))
        for _ in range(2)
    ]
    for thread in waiting:
        thread.start()
    server.wait_for("/slow", 2)

    busy = post(api, url_of(server, "/slow"))
    server.released.set()
    for thread in waiting:
        thread.join()

    assert (busy.status_code, busy.json()["code"]) == (503, "unavailable")
    assert "Retry-After" in busy.headers
    assert statuses == [202, 202]
