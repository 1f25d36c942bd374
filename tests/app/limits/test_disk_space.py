"""A storage without free space: uploads and jobs get 507 before anything is written, and what exists is served."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import ApiSettings
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from contracts.storage import Storage
from contracts.uploads.retention import Retention
from tests.support.disks import full_disk
from tests.support.images import encode_image, encode_solid
from tests.support.parameters import parameters
from tests.support.scripted_worker import ScriptedWorker

RED = encode_solid("RGB", (64, 64), "red")
#: Does not get smaller, however it is stored.
NOISE = encode_image(Image.frombytes("RGB", (128, 128), random.Random(0).randbytes(128 * 128 * 3)))
JOB = {"prompt": "x"}
LORAS = BUILT_IN_CATALOGUE.parent / "loras"
LORA = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def full(settings: SharedSettings) -> Iterator[TestClient]:
    """An API whose reserve is larger than any disk."""
    with TestClient(
        create_app(ApiSettings(shared=settings, reserve_bytes=2**62, anonymous_calls_per_minute=0))
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/v1/uploads", {"content": RED, "headers": {"Content-Type": "image/png"}}),
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
        TestClient(
            create_app(ApiSettings(shared=settings, reserve_bytes=2**62, anonymous_calls_per_minute=0))
        ) as full,
    ):
        assert full.get(f"/v1/jobs/{id}/images/0").content == data
        assert full.delete(f"/v1/jobs/{id}").status_code == 204


def test_a_disk_that_fills_up_while_an_upload_is_written_is_no_internal_error(client: TestClient) -> None:
    with full_disk():
        image = client.post("/v1/uploads", content=RED, headers={"Content-Type": "image/png"})
        lora = client.post("/v1/loras?name=x", content=b"x" * 100_000, headers=LORA)

    assert [(response.status_code, response.json()["code"]) for response in (image, lora)] == [
        (507, "storage_full")
    ] * 2


def test_an_owners_files_have_a_limit_that_waiting_jobs_count_towards(
    settings: SharedSettings, worker: ScriptedWorker, storage: Storage
) -> None:
    limit = parameters().max_result_bytes + 10_000
    with TestClient(create_app(ApiSettings(shared=settings, max_owner_bytes=limit))) as client:
        first = client.post("/v1/txt2img", json=JOB).json()["id"]
        second = client.post("/v1/txt2img", json=JOB)
        assert (second.status_code, second.json()["code"]) == (507, "quota_exceeded")
        assert second.headers["X-Should-Retry"] == "false"

        # Once the job has ended, its images count with their real size.
        worker.complete(worker.claim())
        assert client.post("/v1/uploads", content=RED, headers={"Content-Type": "image/png"}).status_code == 201
        assert client.post("/v1/txt2img", json=JOB).status_code == 202

        assert (
            client.post("/v1/uploads", content=NOISE, headers={"Content-Type": "image/png"}).json()["code"]
            == "quota_exceeded"
        )
        assert len(storage.find("inputs/")) == 1
        assert client.delete(f"/v1/jobs/{first}").status_code == 204


def test_a_lora_counts_until_its_file_is_removed(
    settings: SharedSettings, queue: JobQueue, retention: Retention, storage: Storage
) -> None:
    first, second = ((LORAS / f"shapes-sdxl-{name}.safetensors").read_bytes() for name in ("tint", "stripes"))
    limit = len(first) + len(second) - 1
    with TestClient(create_app(ApiSettings(shared=settings, max_owner_bytes=limit))) as client:
        assert client.post("/v1/loras?name=a", content=first, headers=LORA).status_code == 201
        assert client.post("/v1/loras?name=b", content=second, headers=LORA).json()["code"] == "quota_exceeded"
        assert len(storage.find("inputs/")) == 1

        assert client.delete("/v1/loras/a").status_code == 204
        queue.connection.zadd("darkroom:inputs", dict.fromkeys(storage.find("inputs/"), 1))
        while retention.sweep():
            pass
        app: Any = client.app
        app.state.services.owner_bytes.recount_next()

        assert client.post("/v1/loras?name=b", content=second, headers=LORA).status_code == 201
