"""`/docs` shows the document with files of this service only, at any path prefix."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient


class Addresses(HTMLParser):
    """Collects what a page refers to, and whether a script is written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value is not None]
        if tag == "script":
            assert any(name == "src" for name, _ in attrs)


def addresses_of(page: str) -> list[str]:
    parser = Addresses()
    parser.feed(page)
    return parser.found


def test_everything_that_the_page_loads_is_served_below_it(client: TestClient) -> None:
    page = client.get("/docs")

    assert page.headers["content-type"].startswith("text/html")
    addresses = addresses_of(page.text)
    assert {"docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "docs/docs.js"} <= set(addresses)
    for address in addresses:
        assert client.get(f"/{address}").status_code == 200, address
        assert urljoin("https://host.example/darkroom/docs", address).startswith("https://host.example/darkroom/")


def test_the_page_names_no_other_host_and_may_load_from_none(client: TestClient) -> None:
    for path in ("/docs", "/docs/docs.js"):
        assert not re.search(r"https?://|//[a-z]", client.get(path).text.replace("// ", "")), path
    policy = client.get("/docs").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy


def test_the_license_of_swagger_ui_is_served_with_it(client: TestClient) -> None:
    text = client.get("/docs/swagger-ui-license.txt").text

    assert "Apache License" in text
    assert "SmartBear" in text
    bundle = client.get("/docs/swagger-ui-bundle.js").text
    (version,) = set(re.findall(r'PACKAGE_VERSION:"([0-9.]+)"', bundle))
    assert f"Swagger UI {version}" in text


def test_nothing_else_is_served_there(client: TestClient, subtests: pytest.Subtests) -> None:
    for path in ["/redoc", "/docs/oauth2-redirect", "/docs/__init__.py", "/docs/../page.py"]:
        with subtests.test(path=path):
            assert client.get(path).status_code == 404
