"""The page at `/`: for browsers only, below any path prefix, and not at all where it is turned off."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient
from pydantic import AnyHttpUrl

from app.main import create_app
from app.settings import ApiSettings

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
FILES = ["page/main.js", "page/page.css", "page/icon.svg", "page/vendor/lit-html/lit-html.js"]


@pytest.fixture
def behind_prefix(api_settings: ApiSettings) -> Iterator[TestClient]:
    settings = api_settings.model_copy(update={"public_url": AnyHttpUrl("https://example.com/images")})
    with TestClient(create_app(settings), raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


def test_who_asks_for_html_gets_the_page(client: TestClient, subtests: pytest.Subtests) -> None:
    for accept in [BROWSER, "text/html", "application/json;q=0.5, text/html", "TEXT/HTML"]:
        with subtests.test(accept=accept):
            response = client.get("/", headers={"Accept": accept})

            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/html")
            assert "default-src 'none'" in response.headers["content-security-policy"]
            assert response.headers["vary"] == "Accept"
            assert "<title>Darkroom</title>" in response.text


def test_other_clients_get_what_any_path_without_a_route_gives(
    client: TestClient, subtests: pytest.Subtests
) -> None:
    for accept in [
        "*/*",
        "application/json",
        "",
        "text/html;q=0.1, application/json",
        "text/html;q=0",
        "text/html;q=x",
    ]:
        with subtests.test(accept=accept):
            root, elsewhere = (client.get(path, headers={"Accept": accept}) for path in ("/", "/elsewhere"))

            assert root.headers["content-type"] == "application/problem+json"
            assert {**root.json(), "request_id": "", "detail": ""} == {
                **elsewhere.json(),
                "request_id": "",
                "detail": "",
            }
            assert root.status_code == 404


def test_the_files_are_served_with_the_policy_and_not_sent_twice(client: TestClient) -> None:
    for path in FILES:
        first = client.get(f"/{path}")
        again = client.get(f"/{path}", headers={"If-None-Match": first.headers["etag"]})

        assert (first.status_code, again.status_code, again.content) == (200, 304, b""), path
        assert first.headers["x-content-type-options"] == "nosniff"
        assert "script-src 'self'" in first.headers["content-security-policy"]
        assert client.head(f"/{path}").headers["content-length"] == str(len(first.content))


def test_nothing_else_is_served_there(client: TestClient, subtests: pytest.Subtests) -> None:
    for path in [
        "/page",
        "/page/",
        "/page/../files.py",
        "/page/%2e%2e/files.py",
        "/page/..%2ffiles.py",
        "/page/views",
    ]:
        with subtests.test(path=path):
            assert client.get(path, headers={"Accept": BROWSER}, follow_redirects=False).status_code in (404, 307)
            assert client.get(path, headers={"Accept": BROWSER}).status_code == 404


def test_the_page_needs_no_key_and_shows_nothing_without_one(api_settings: ApiSettings) -> None:
    settings = api_settings.model_copy(update={"require_keys": True})
    with TestClient(create_app(settings)) as client:
        assert client.get("/", headers={"Accept": BROWSER}).status_code == 200
        assert client.get("/v1/models").status_code == 401


def test_an_operator_can_turn_the_page_off(api_settings: ApiSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_API_PAGE", "off")
    settings = api_settings.model_copy(update={"page": ApiSettings().page})
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for path in ("/", *FILES):
            assert client.get(path, headers={"Accept": BROWSER}).status_code == 404, path
        assert client.post("/").status_code == 404


@pytest.mark.parametrize("prefix", ["", "/images"])
def test_behind_a_prefix_the_page_loads_what_is_below_it(behind_prefix: TestClient, prefix: str) -> None:
    assert behind_prefix.get(f"{prefix}/", headers={"Accept": BROWSER}).status_code == 200
    for path in FILES:
        address = urljoin("https://example.com/images/", path)
        assert behind_prefix.get(address.removeprefix("https://example.com")).status_code == 200
        assert behind_prefix.get(f"{prefix}/{path}").status_code == 200


def test_a_prefix_without_its_slash_leads_to_the_page(behind_prefix: TestClient) -> None:
    response = behind_prefix.get("/images", headers={"Accept": BROWSER})

    assert response.headers["location"] == "https://example.com/images/"
