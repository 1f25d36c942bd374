"""HEAD is answered wherever GET is, with the headers of GET; OPTIONS tells the methods."""

from __future__ import annotations

import logging

import pytest
from fastapi.testclient import TestClient

from contracts.settings import SharedSettings
from tests.support.api_process import api_process
from tests.support.requests import submit
from tests.support.scripted_worker import ScriptedWorker


def test_every_address_that_can_be_read_answers_head_with_the_headers_of_get(
    client: TestClient, worker: ScriptedWorker
) -> None:
    job = submit(client)
    worker.complete(worker.claim())
    own = f"/v1/jobs/{job['id']}"
    image = client.get(own).json()["images"][0]["url"]
    paths = [
        template.replace("{id}", {"/v1/models/{id}": "shapes-sdxl"}.get(template, job["id"])).replace("{n}", "0")
        for template, operations in client.get("/openapi.json").json()["paths"].items()
        if "get" in operations
    ]
    assert len(paths) > 12

    for path in [*paths, "/openapi.json", "/docs", "/nothing", f"{own}/images/9", image, job["links"]["events"]]:
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        for name in ("Content-Type", "ETag", "Cache-Control"):
            assert head.headers.get(name) == got.headers.get(name), path


def test_head_of_a_running_jobs_events_ends_and_its_connection_goes_on(settings: SharedSettings) -> None:
    with api_process(settings.redis_url, settings.data) as (client, _):
        job = client.post("/v1/txt2img", json={"prompt": "x"}).json()
        for _ in range(3):
            response = client.head(f"/v1/jobs/{job['id']}/events")
            assert (response.status_code, response.content) == (200, b"")
            assert response.headers["Content-Type"].startswith("text/event-stream")
        length = client.head(f"/v1/jobs/{job['id']}").headers["Content-Length"]
        assert int(length) == len(client.get(f"/v1/jobs/{job['id']}").content)


def test_the_access_log_names_the_method_and_the_route_of_head(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    job = submit(client)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "app.middleware.access_log"):
        client.head(f"/v1/jobs/{job['id']}")

    (record,) = [record for record in caplog.records if record.name == "app.middleware.access_log"]
    assert (record.__dict__["method"], record.__dict__["route"]) == ("HEAD", "/v1/jobs/{id}")


def test_options_and_a_wrong_method_are_answered_with_the_methods(client: TestClient) -> None:
    for path, methods in (
        ("/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/v1/jobs/x", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/txt2img", "OPTIONS, POST"),
        ("/healthz", "GET, HEAD, OPTIONS"),
    ):
        options, wrong = client.options(path), client.patch(path)

        assert (options.status_code, options.headers["Allow"], options.content) == (204, methods, b""), path
        assert (wrong.status_code, wrong.headers["Allow"]) == (405, methods)


def test_options_of_an_unknown_address_is_not_found(client: TestClient) -> None:
    assert client.options("/v1/nothing").status_code == 404
