"""API and worker over an S3 bucket in place of the local folder, in this process."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import ApiSettings
from contracts.catalogue.reader import read_catalogue
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from contracts.storage.bucket import BucketStorage
from tests.support.images import draw_shape, to_data_url
from tests.support.workers import close_connections, make_consumer, work_until_ended
from worker.pool.pool import Pool


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """A consumer takes over the signals of its process, which here is the tests', and leaves connections open."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    close_connections()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def shared(
    tmp_path: Path, redis_url: str, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> SharedSettings:
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://darkroom/{tmp_path.name}"
    return SharedSettings(redis_url=redis_url, data=tmp_path / "data", storage_url=url)


def test_images_and_uploads_go_through_the_bucket(
    shared: SharedSettings, queue: JobQueue, s3_environment: dict[str, str]
) -> None:
    stored = BucketStorage(shared.storage_url)
    pool = Pool(read_catalogue(BUILT_IN_CATALOGUE), device="cpu")

    def run(client: TestClient, task: str, **fields: object) -> dict[str, Any]:
        body = {"prompt": "a red circle", "num_inference_steps": 2, "seed": 0, **fields}
        id = client.post(f"/v1/{task}", json=body).raise_for_status().json()["id"]
        work_until_ended(make_consumer(shared, pool, stored), queue, id)
        job = dict(client.get(f"/v1/jobs/{id}").raise_for_status().json())
        assert job["status"] == "completed", job["error"]
        return job

    with TestClient(
        create_app(ApiSettings(shared=shared, redirect_images=True)), follow_redirects=False
    ) as client:
        first = run(client, "txt2img")
        second = run(client, "img2img", image=f"job:{first['id']}/0", strength=0.5)
        third = run(client, "img2img", image=to_data_url(draw_shape()), strength=0.5)
        for job in (first, second, third):
            answer = client.get(job["images"][0]["url"])
            assert answer.status_code == 307
            assert answer.headers["location"].startswith(s3_environment["AWS_ENDPOINT_URL"])
            image = httpx.get(answer.headers["location"], trust_env=False).raise_for_status().content
            assert Image.open(io.BytesIO(image)).size == (64, 64)
        policy = client.get("/", headers={"Accept": "text/html"}).headers["content-security-policy"]
        assert f"img-src 'self' data: blob: {s3_environment['AWS_ENDPOINT_URL']};" in policy
        assert (len(stored.find("images/")), len(stored.find("inputs/"))) == (3, 2)
        assert not (shared.data / "storage").exists()

        assert client.delete(f"/v1/jobs/{first['id']}").status_code == 204
        assert len(stored.find("images/")) == 2
        assert client.get(first["images"][0]["url"]).status_code == 404
