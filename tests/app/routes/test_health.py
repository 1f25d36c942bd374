"""Liveness: the process answers. Readiness: a job would be served, or else what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage.local import LocalStorage
from tests.support.disks import fill, full_disk, redis_on_a_small_disk


def test_a_process_that_answers_is_alive(client: TestClient) -> None:
    response = client.get("/healthz")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_service_with_a_worker_is_ready(client: TestClient, queue: JobQueue, state: str) -> None:
    publish(queue.connection, WorkerReport(id="w", state=state), ttl_seconds=60)

    response = client.get("/readyz")

    assert (response.status_code, response.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize("state", [None, "starting", "draining"])
def test_a_service_without_a_worker_is_not_ready(client: TestClient, queue: JobQueue, state: str | None) -> None:
    if state is not None:
        publish(queue.connection, WorkerReport(id="w", state=state), ttl_seconds=60)

    response = client.get("/readyz")

    problem = response.json()
    assert (response.status_code, problem["code"]) == (503, "not_ready")
    assert [entry["field"] for entry in problem["errors"]] == ["workers"]
    assert int(response.headers["Retry-After"]) > 0


def test_a_storage_that_cannot_be_written_is_named(client: TestClient, settings: SharedSettings) -> None:
    (settings.data / "storage").write_text("a file where a folder should be")

    problem = client.get("/readyz").json()

    assert [entry["field"] for entry in problem["errors"]] == ["storage", "workers"]


def test_the_reason_why_all_workers_are_paused_is_told(client: TestClient, queue: JobQueue) -> None:
    reason = "the storage folder of results (images/) is full"
    for id in ("a", "b"):
        publish(queue.connection, WorkerReport(id=id, state="paused", reason=reason), ttl_seconds=60)

    response = client.get("/readyz")

    (entry,) = response.json()["errors"]
    assert response.status_code == 503
    assert (entry["field"], entry["message"]) == ("workers", f"every worker is paused: {reason}")


@pytest.mark.parametrize(("part", "title"), [("images", "results"), ("inputs", "uploads")])
def test_the_part_of_the_storage_that_takes_no_bytes_is_named(
    client: TestClient, settings: SharedSettings, part: str, title: str
) -> None:
    LocalStorage(settings.data / "storage").check()
    shutil.rmtree(settings.data / "storage" / part)
    (settings.data / "storage" / part).write_text("a file where a folder should be")

    problem = client.get("/readyz").json()

    assert problem["errors"][0]["field"] == "storage"
    assert f"storage folder of {title} ({part}/)" in problem["errors"][0]["message"]


def test_a_full_disk_is_not_ready_although_it_takes_empty_files(client: TestClient) -> None:
    with full_disk():
        problem = client.get("/readyz").json()

    assert "storage folder of results (images/) is full" in problem["errors"][0]["message"]


def test_a_reserve_that_is_used_up_and_a_redis_whose_disk_is_full_are_named(tmp_path: Path) -> None:
    with redis_on_a_small_disk(tmp_path) as (url, server):
        shared = SharedSettings(redis_url=url, data=tmp_path / "data")
        with TestClient(create_app(ApiSettings(shared=shared, reserve_bytes=2**62))) as client:
            fill(server, url)
            problem = client.get("/readyz").json()

    told = {entry["field"]: entry["message"] for entry in problem["errors"]}
    assert "DARKROOM_API_RESERVE_BYTES" in told["storage"]
    assert "Redis cannot write to its disk" in told["redis"]


def test_a_full_folder_for_temporary_files_is_named(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc")  # takes no files

    fields = [entry["field"] for entry in client.get("/readyz").json()["errors"]]

    assert fields == ["spool", "workers"]
