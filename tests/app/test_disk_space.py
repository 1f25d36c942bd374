"""A storage without free space: uploads and jobs get 507 before anything is written, and what exists is served."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.disks import full_disk
from tests.support.images import encode_solid
from tests.support.scripted_worker import ScriptedWorker

RED = encode_solid("RGB", (64, 64), "red")
JOB = {"prompt": "x"}
LORA = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def full(settings: SharedSettings) -> Iterator[TestClient]:
    """An API whose reserve is larger than any disk."""
    with TestClient(create_app(ApiSettings(shared=settings, reserve_bytes=2**62))) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/v1/uploads", {"content": RED}),
        ("/v1/loras?name=x", {"content": b"never read", "headers": LORA}),
        ("/v1/txt2img", {"json": JOB}),
        ("/v1/images/generations", {"json": JOB}),
    ],
)
def test_what_would_be_stored_is_refused_before_anything_is_written(
    full: TestClient, queue: JobQueue, storage: Storage, path: str, arguments: dict[str, object]
) -> None:
    before = set(queue.connection.scan_iter("*"))

    response = full.post(path, **arguments)  # type: ignore[arg-type]

    assert response.status_code == 507, response.text
    assert int(response.headers["Retry-After"]) > 0
    assert "storage is full" in response.text
    assert storage.find("inputs/") == []
    assert set(queue.connection.scan_iter("*")) == before


def test_the_error_has_a_stable_code(full: TestClient) -> None:
    assert full.post("/v1/txt2img", json=JOB).json()["code"] == "storage_full"


def test_a_request_that_is_wrong_is_told_so_all_the_same(full: TestClient) -> None:
    assert full.post("/v1/txt2img", json={**JOB, "width": 63}).status_code == 422


def test_finished_jobs_are_served_and_deleted_on_a_full_disk(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker, settings: SharedSettings
) -> None:
    id = client.post("/v1/txt2img", json=JOB).json()["id"]
    data = worker.complete(worker.claim())
    with (
        full_disk(),
        TestClient(create_app(ApiSettings(shared=settings, reserve_bytes=2**62))) as full,
    ):
        assert full.get(f"/v1/jobs/{id}/images/0").content == data
        assert full.delete(f"/v1/jobs/{id}").status_code == 204


def test_a_disk_that_fills_up_while_an_upload_is_written_is_no_internal_error(client: TestClient) -> None:
    with full_disk():
        image = client.post("/v1/uploads", content=RED)
        lora = client.post("/v1/loras?name=x", content=b"x" * 100_000, headers=LORA)

    assert [(response.status_code, response.json()["code"]) for response in (image, lora)] == [
        (507, "storage_full")
    ] * 2
