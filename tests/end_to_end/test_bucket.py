"""The whole service over an S3 bucket in place of the local folder."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest
from PIL import Image

from contracts.storage.bucket import BucketStorage
from tests.support.images import draw_shape, to_data_url
from tests.support.running_service import Json, RunningService


def download_image(service: RunningService, job: Json) -> Image.Image:
    """Download a job's first image from the bucket, by following the redirect."""
    answer = httpx.get(job["images"][0]["url"], trust_env=False, follow_redirects=True).raise_for_status()
    return Image.open(io.BytesIO(answer.content))


def test_images_and_uploads_go_through_the_bucket(
    tmp_path: Path, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://darkroom/{tmp_path.name}"
    service = RunningService(
        tmp_path / "data",
        environment={**s3_environment, "DARKROOM_STORAGE_URL": url, "DARKROOM_API_REDIRECT_IMAGES": "true"},
    )
    try:
        first = service.run("txt2img", seed=0)
        second = service.run("img2img", image=f"job:{first['id']}/0", strength=0.5, seed=0)
        third = service.run("img2img", image=to_data_url(draw_shape()), strength=0.5, seed=0)
        assert [download_image(service, job).size for job in (first, second, third)] == [(64, 64)] * 3
        answer = service.http.get(first["images"][0]["url"])
        assert answer.status_code == 307
        assert answer.headers["location"].startswith(s3_environment["AWS_ENDPOINT_URL"])
        policy = service.http.get("/", headers={"Accept": "text/html"}).headers["content-security-policy"]
        assert f"img-src 'self' data: blob: {s3_environment['AWS_ENDPOINT_URL']};" in policy
        stored = BucketStorage(url)
        assert len(stored.find("images/")) == 3
        assert len(stored.find("inputs/")) == 2
        assert not (tmp_path / "data" / "storage").exists()

        assert service.http.delete(f"/v1/jobs/{first['id']}").status_code == 204
        assert len(stored.find("images/")) == 2
        with pytest.raises(httpx.HTTPStatusError):
            service.bytes_of(first)
    finally:
        assert service.stop() == 0
