"""Liveness: the process answers. Readiness: a job would be served, or else what is missing."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from contracts.queue.client import JobQueue
from contracts.queue.workers import WorkerReport, publish
from contracts.settings import SharedSettings


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
