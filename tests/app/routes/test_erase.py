"""Erasing over HTTP: accepted, refused with the remedy, listed, and run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from contracts.queue.client import JobQueue
from contracts.requests.plain.erasing import EraseParameters
from contracts.settings import SharedSettings
from tests.support.images import to_data_url

CATALOGUE = """default_model = "xl"
[[models]]
id = "xl"
family = "sdxl"
source = "org/xl"
[[erasers]]
id = "lama"
source = "org/erasers/lama.safetensors"
"""


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    (tmp_path / "catalogue.toml").write_text(CATALOGUE, encoding="utf-8")
    return SharedSettings(redis_url=redis_url, data=tmp_path / "data", catalogue=tmp_path / "catalogue.toml")


def picture(size: tuple[int, int] = (60, 40)) -> str:
    return to_data_url(Image.new("RGB", size, "red"))


def mask(size: tuple[int, int] = (60, 40), white: bool = True) -> str:
    image = Image.new("L", size, 0)
    if white:
        image.paste(255, (5, 5, 20, 20))
    return to_data_url(image)


BODY = {"image": picture(), "mask_image": mask()}


def test_an_erasure_is_a_job_with_its_image_and_mask(client: TestClient, queue: JobQueue) -> None:
    job = client.post("/v1/erase", json=BODY).json()
    stored = queue.fetch(job["id"]).parameters
    assert (job["task"], job["model"]) == ("erase", "lama")
    assert isinstance(stored, EraseParameters)
    assert (stored.width, stored.height, stored.needs) == (60, 40, ["eraser:lama"])
    assert [use.field for use in stored.input_images] == ["image", "mask_image"]
    assert len(stored.inputs) == 2


def test_what_is_refused_names_the_field_and_the_remedy(client: TestClient, subtests: pytest.Subtests) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"mask_image": None}, "mask_image", "required"),
        ({"image": None}, "image", "required"),
        ({"mask_image": mask((40, 60))}, "mask_image", "60 × 40"),
        ({"mask_image": mask(white=False)}, "mask_image", "no pixel"),
        ({"model": "xl"}, "model", "GET /v1/erasers"),
        ({"strength": 0.5}, "strength", ""),
    ]
    for changes, field, text in cases:
        with subtests.test(changes=changes, field=field, text=text):
            answer = client.post("/v1/erase", json=BODY | changes)
            assert answer.status_code == 422
            problems = answer.json()["errors"]
            assert field in [problem["field"] for problem in problems]
            assert text in str(problems)


def test_the_erasers_are_listed(client: TestClient) -> None:
    (lama,) = client.get("/v1/erasers").json()["data"]
    schema = lama.pop("schemas")["erase"]
    assert lama == {"id": "lama", "title": "", "ready": False, "preparing": None}
    assert (schema["properties"]["model"]["anyOf"][0]["enum"], schema["required"]) == (
        ["lama"],
        ["image", "mask_image"],
    )


def test_an_erasure_is_run_again_with_another_mask(client: TestClient, queue: JobQueue) -> None:
    first = client.post("/v1/erase", json=BODY).json()
    same = client.post(f"/v1/jobs/{first['id']}/rerun", json={}).json()
    other = Image.new("L", (60, 40), 0)
    other.paste(255, (30, 5, 50, 20))
    again = client.post(f"/v1/jobs/{first['id']}/rerun", json={"mask_image": to_data_url(other)}).json()
    before, after, changed = (queue.fetch(job["id"]).parameters.inputs for job in (first, same, again))
    assert before == after
    assert (before[0] == changed[0], before[1] == changed[1]) == (True, False)
