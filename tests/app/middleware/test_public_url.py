"""Behind a proxy at a public URL with a path, which the proxy removes or leaves: links, redirects, errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient
from pydantic import AnyHttpUrl

from app.main import create_app
from app.settings import ApiSettings
from tests.support.requests import submit
from tests.support.scripted_worker import ScriptedWorker

PUBLIC = "https://example.com/images"


@pytest.fixture
def client(api_settings: ApiSettings) -> Iterator[TestClient]:
    settings = api_settings.model_copy(update={"public_url": AnyHttpUrl(PUBLIC)})
    with TestClient(create_app(settings), raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


def test_every_link_of_a_job_has_the_prefix_and_works(client: TestClient, worker: ScriptedWorker) -> None:
    made = client.post("/v1/txt2img", json={"prompt": "a"})
    worker.complete(worker.claim())
    job = client.get(f"/v1/jobs/{made.json()['id']}").json()

    urls = [made.headers["Location"], job["links"]["self"], job["links"]["events"], job["images"][0]["url"]]
    assert [url for url in urls if not url.startswith(f"{PUBLIC}/v1/jobs/")] == []
    for url in urls:
        kept = url.removeprefix("https://example.com")
        assert [client.get(path).status_code for path in (kept, kept.removeprefix("/images"))] == [200, 200]


@pytest.mark.parametrize("prefix", ["", "/images"])
def test_the_documentation_finds_its_document_and_the_document_its_service(
    client: TestClient, prefix: str
) -> None:
    page, document = client.get(f"{prefix}/docs"), client.get(f"{prefix}/openapi.json")

    files = [urljoin("/images/docs", name) for name in re.findall(r'(?:href|src)="([^"]+)"', page.text)]
    assert len(files) > 3
    assert [name for name in files if not name.startswith("/images/") or client.get(name).status_code != 200] == []
    assert document.json()["servers"] == [{"url": "/images"}]


@pytest.mark.parametrize("prefix", ["", "/images"])
def test_a_redirect_keeps_the_prefix(client: TestClient, prefix: str) -> None:
    response = client.get(f"{prefix}/v1/models/")

    assert (response.status_code, response.headers["Location"]) == (307, f"{PUBLIC}/v1/models")


@pytest.mark.parametrize("prefix", ["", "/images"])
def test_errors_are_in_the_words_of_the_dialect_that_was_called(client: TestClient, prefix: str) -> None:
    theirs, ours = (client.post(f"{prefix}/v1/{path}", json={}) for path in ("images/generations", "txt2img"))

    assert theirs.json()["error"]["param"] == "prompt"
    assert ours.json()["code"] == "invalid_request"
    assert client.put(f"{prefix}/v1/jobs").headers["Allow"] == "GET, HEAD, OPTIONS, POST"


def test_a_path_that_only_begins_like_the_prefix_is_not_below_it(client: TestClient) -> None:
    assert client.get("/imagesv1/models").status_code == 404
    assert submit(client)["links"]["self"].startswith(PUBLIC)
