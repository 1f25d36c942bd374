"""The log line of each response; the metrics are tested with `/metrics`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.api_process import api_process


def fields_of(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    names = ("levelname", "method", "route", "path", "status", "job_id")
    records = [record for record in caplog.records if record.name == "app.middleware.access_log"]
    return [tuple(getattr(record, name, None) for name in names) for record in records]


def test_what_was_refused_is_logged_and_health_checks_and_polls_only_for_debugging(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for path in ("/healthz", "/readyz", "/v1/jobs", "/v1/jobs/one/events?a=b", "/nothing"):
        client.get(path)

    assert fields_of(caplog) == [
        ("DEBUG", "GET", "/healthz", "/healthz", 200, None),
        ("DEBUG", "GET", "/readyz", "/readyz", 503, None),
        ("DEBUG", "GET", "/v1/jobs", "/v1/jobs", 200, None),
        ("INFO", "GET", "/v1/jobs/{id}/events", "/v1/jobs/one/events", 422, "one"),
        ("INFO", "GET", "other", "/nothing", 404, None),
    ]


@pytest.mark.parametrize("prompts", ["true", "false"])
def test_the_service_writes_json_lines_and_prompts_when_asked(
    redis_url: str, tmp_path: Path, prompts: str
) -> None:
    environment = {"DARKROOM_LOG_PROMPTS": prompts, "DARKROOM_LOG_LEVEL": "info"}
    with api_process(redis_url, tmp_path, **environment) as (client, process):
        client.post("/v1/txt2img", json={"prompt": "a zebra"}, headers={"X-Request-ID": "mine"})
        process.terminate()
        _, log = process.communicate(timeout=60)

    lines = [json.loads(line) for line in log.splitlines()]
    (accepted,) = [line for line in lines if line["message"] == "job accepted"]
    assert accepted["request_id"] == "mine"
    assert accepted.get("prompt") == ("a zebra" if prompts == "true" else None)
    assert ("zebra" in log) == (prompts == "true")


def test_an_invalid_log_setting_is_reported_by_name(redis_url: str, tmp_path: Path) -> None:
    with api_process(redis_url, tmp_path, DARKROOM_LOG_FORMAT="xml") as (_, process):
        _, log = process.communicate(timeout=60)

    assert process.returncode == 1
    assert log.startswith("darkroom api: DARKROOM_LOG_FORMAT: ")
