"""The application as a whole: it is built from settings alone, and two of them are independent."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.errors import CatalogueError
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings


def test_an_inconsistent_catalogue_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text("models = []", encoding="utf-8")

    with pytest.raises(CatalogueError, match="default_model"):
        create_app(ApiSettings(shared=SharedSettings(catalogue=path)))


def test_creating_an_application_opens_neither_redis_nor_files(tmp_path: Path) -> None:
    data = tmp_path / "data"

    create_app(ApiSettings(shared=SharedSettings(redis_url="unix:///nowhere.sock", data=data)))

    assert not data.exists()


def test_any_replica_answers_for_any_job(api_settings: ApiSettings) -> None:
    with TestClient(create_app(api_settings)) as api, TestClient(create_app(api_settings)) as other_api:
        id = api.post("/v1/txt2img", json={"prompt": "x"}).json()["id"]

        assert other_api.get(f"/v1/jobs/{id}").json()["status"] == "queued"
        assert other_api.post(f"/v1/jobs/{id}/cancel").json()["status"] == "cancelled"
        assert api.get(f"/v1/jobs/{id}").json()["status"] == "cancelled"


def test_unknown_routes_and_methods_are_problems(client: TestClient) -> None:
    for response, status in ((client.get("/v1/nothing"), 404), (client.get("/v1/txt2img"), 405)):
        assert response.status_code == response.json()["status"] == status
        assert response.headers["content-type"] == "application/problem+json"


def test_no_request_scans_the_keys_of_redis(client: TestClient, queue: JobQueue) -> None:
    publish(queue.connection, WorkerReport(id="w", state="idle"), ttl_seconds=60)
    queue.connection.config_resetstat()

    id = client.post("/v1/txt2img", json={"prompt": "x"}).json()["id"]
    for path in (f"jobs/{id}", "models", "models/shapes-sdxl", "workers"):
        assert client.get(f"/v1/{path}").status_code == 200
    assert client.get("/readyz").status_code == 200

    used = queue.connection.info("commandstats").keys()
    assert "cmdstat_hgetall" in used
    assert not {"cmdstat_scan", "cmdstat_keys"} & used


def test_the_application_can_be_closed_right_after_its_start(api_settings: ApiSettings) -> None:
    for _ in range(20):
        with TestClient(create_app(api_settings)) as client:
            assert client.get("/healthz").status_code == 200
