"""A service without API keys serves programs on this machine, and no page that a browser shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import AnyHttpUrl

from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings

JOB = {"prompt": "a red circle"}


@contextmanager
def serving(settings: SharedSettings, **options: Any) -> Iterator[TestClient]:
    api = ApiSettings(shared=settings, **{"allowed_hosts": [], **options})
    with TestClient(create_app(api), base_url="http://localhost:8000") as client:
        yield client


@pytest.fixture
def client(settings: SharedSettings) -> Iterator[TestClient]:
    """A client of a service on loopback, without keys."""
    with serving(settings) as client:
        yield client


OWN_NAMES = (
    "localhost",
    "LOCALHOST:8000",
    "localhost.",
    "a.localhost",
    "127.0.0.1:8000",
    "127.9.9.9",
    "[::1]:8000",
)
FOREIGN_NAMES = (
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "",
    "[",
    "a@b",
    "evil.example@localhost",
    "localhost#evil.example",
    "localhost/evil.example",
)


def test_this_machine_may_be_addressed_by_any_of_its_own_names(client: TestClient) -> None:
    for host in OWN_NAMES:
        assert client.post("/v1/txt2img", json=JOB, headers={"Host": host}).status_code == 202, host


def test_another_host_is_refused_with_a_remedy(client: TestClient) -> None:
    for host in FOREIGN_NAMES:
        for path in ("/v1/jobs", "/v1/models", "/v1/workers"):
            response = client.get(path, headers={"Host": host})

            assert (response.status_code, response.json()["code"]) == (421, "host_refused"), (host, path)
            assert "DARKROOM_API_ALLOWED_HOSTS" in response.json()["detail"]


def test_probes_and_documentation_are_served_under_any_name(client: TestClient) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert client.get(path, headers={"Host": "10.1.2.3:8000"}).status_code != 421, path


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8000"},
]


def test_a_page_of_another_origin_cannot_change_anything(client: TestClient, queue: JobQueue) -> None:
    for headers in FOREIGN:
        calls = [
            client.post("/v1/txt2img", json=JOB, headers=headers),
            client.post("/v1/images/generations", json=JOB, headers=headers),
            client.post("/v1/images/edits", data=JOB, files={"image": b"x"}, headers=headers),
            client.post("/v1/uploads", files={"file": b"x"}, headers=headers),
            client.post("/v1/jobs/0/cancel", headers=headers),
            client.delete("/v1/loras/a", headers=headers),
        ]

        assert {call.status_code for call in calls} == {403}, headers
        assert all("API key" in call.text for call in calls)
    assert queue.connection.zcard("darkroom:jobs:local") == 0


def test_programs_and_the_services_own_page_can(client: TestClient, subtests: pytest.Subtests) -> None:
    for headers in [
        {},
        {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ]:
        with subtests.test(headers=headers):
            assert client.post("/v1/txt2img", json=JOB, headers=headers).status_code == 202


def test_hosts_that_the_operator_names_are_served(settings: SharedSettings) -> None:
    public = AnyHttpUrl("https://images.example/")
    with serving(settings, public_url=public, allowed_hosts=["darkroom.lan"]) as client:
        behind_proxy = {"Host": "images.example", "Origin": "https://images.example"}
        for headers in (
            behind_proxy,
            {"Host": "localhost", "Origin": "https://images.example"},
            {"Host": "darkroom.lan:8000"},
        ):
            assert client.post("/v1/txt2img", json=JOB, headers=headers).status_code == 202
        assert client.get("/v1/jobs", headers={"Host": "other.lan"}).status_code == 421


def test_a_service_that_is_open_on_purpose_is_addressed_by_number_and_by_no_unknown_name(
    settings: SharedSettings,
) -> None:
    with serving(settings, host="0.0.0.0", allow_anonymous=True) as client:
        assert client.get("/v1/jobs", headers={"Host": "10.0.0.1:8000"}).status_code == 200
        assert client.get("/v1/jobs", headers={"Host": "evil.example"}).status_code == 421


def test_with_an_api_key_any_host_and_origin_is_served(client: TestClient, queue: JobQueue) -> None:
    _, token = ApiKeyStore(queue.connection).create("team")
    headers = {"Host": "any.example", "Origin": "https://app.example", "Authorization": f"Bearer {token}"}

    assert client.post("/v1/txt2img", json=JOB, headers=headers).status_code == 202
