"""Upscaled images over HTTP: accepted, refused with the remedy, listed, and run again."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import ApiSettings
from contracts.queue.client import JobQueue
from contracts.requests.plain.upscaling import UpscaleParameters
from contracts.settings import SharedSettings
from tests.support.images import encode_image, to_data_url

CATALOGUE = """default_model = "xl"
[[models]]
id = "xl"
family = "sdxl"
source = "org/xl"
[[upscalers]]
id = "four"
source = "org/upscalers/four.safetensors"
scale = 4
title = "For photos"
[[upscalers]]
id = "two"
source = "org/upscalers/two.safetensors"
scale = 2
"""


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    (tmp_path / "catalogue.toml").write_text(CATALOGUE, encoding="utf-8")
    return SharedSettings(redis_url=redis_url, data=tmp_path / "data", catalogue=tmp_path / "catalogue.toml")


@pytest.fixture
def api_settings(settings: SharedSettings) -> ApiSettings:
    return ApiSettings(shared=settings, anonymous_calls_per_minute=0, max_upscaled_pixels=640_000)


def picture(width: int = 60, height: int = 40, mode: str = "RGB") -> str:
    return to_data_url(Image.new(mode, (width, height), "red"))


def test_an_upscale_is_a_job_with_the_size_that_its_image_will_have(client: TestClient, queue: JobQueue) -> None:
    body = {"image": picture(), "output_format": "webp", "metadata": {"order": "7"}, "priority": "low"}
    answer = client.post("/v1/upscale", json=body)
    assert answer.status_code == 202
    job = answer.json()
    assert (job["task"], job["model"], job["metadata"]) == ("upscale", "four", {"order": "7"})
    assert job["queue"]["position"] == 1
    record = queue.fetch(job["id"])
    stored = record.parameters
    assert isinstance(stored, UpscaleParameters)
    assert (stored.width, stored.height, stored.scale, stored.output_format) == (240, 160, 4, "webp")
    assert (record.queue, stored.needs) == ("darkroom:low:four:local", ["upscaler:four"])
    assert client.get(job["links"]["self"]).json()["task"] == "upscale"


def test_any_of_the_ways_to_name_an_image_works(client: TestClient) -> None:
    file = encode_image(Image.new("RGBA", (8, 8), (1, 2, 3, 4)))
    upload = client.post("/v1/uploads", content=file, headers={"Content-Type": "image/png"}).json()
    plain = base64.b64encode(encode_image(Image.new("L", (8, 8)))).decode()
    for image in (upload["id"], plain):
        assert client.post("/v1/upscale", json={"image": image, "model": "two"}).status_code == 202


#: Bodies, the field that is told, and what of the message and the allowed values matters.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "image", "required"),
    ({"image": "upload:none"}, "image", "upload"),
    ({"image": "AAAA"}, "image", ""),
    ({"image": picture(), "model": "xl"}, "model", "GET /v1/upscalers"),
    ({"image": picture(), "model": "FOUR"}, "model", "four"),
    ({"image": picture(), "prompt": "sharper"}, "prompt", ""),
    ({"image": picture(), "output_quality": 0}, "output_quality", "1"),
    ({"image": picture(), "task": "erase"}, "task", "upscale"),
    ({"image": picture(300, 200)}, "image", "width × height ≤ 40000"),
    ({"image": picture(300, 200)}, "image", "scale it down to 244 × 163"),
]


def test_what_is_refused_names_the_field_and_the_remedy(
    client: TestClient, queue: JobQueue, subtests: pytest.Subtests
) -> None:
    for body, field, text in REFUSED:
        with subtests.test(body=body, field=field, text=text):
            answer = client.post("/v1/upscale", json=body)
            assert answer.status_code in (415, 422)
            problems = answer.json()["errors"]
            assert field in [problem["field"] for problem in problems]
            assert text in str(problems)
            assert queue.connection.keys("darkroom:job:*") == []


def test_the_limit_is_the_image_that_fits_exactly(client: TestClient) -> None:
    assert client.post("/v1/upscale", json={"image": picture(200, 200)}).status_code == 202
    assert client.post("/v1/upscale", json={"image": picture(201, 200)}).status_code == 422


def test_a_service_without_upscalers_says_what_its_operator_can_do(settings: SharedSettings) -> None:
    without = CATALOGUE.partition("[[upscalers]]")[0]
    settings.catalogue.write_text(without, encoding="utf-8")
    with TestClient(create_app(ApiSettings(shared=settings))) as client:
        (problem,) = client.post("/v1/upscale", json={"image": picture()}).json()["errors"]
        assert client.get("/v1/upscalers").json()["data"] == []
    assert (problem["field"], "[[upscalers]]" in problem["message"]) == ("model", True)


def test_the_upscalers_are_listed_with_the_largest_input(client: TestClient) -> None:
    four, two = client.get("/v1/upscalers").json()["data"]
    schemas = [row.pop("schemas")["upscale"] for row in (four, two)]
    assert four == {
        "id": "four", "title": "For photos", "scale": 4, "max_pixels": 40_000, "ready": False, "preparing": None
    }  # fmt: skip
    assert (two["id"], two["max_pixels"]) == ("two", 160_000)
    assert [schema["properties"]["model"]["anyOf"][0]["enum"] for schema in schemas] == [["four"], ["two"]]


def test_an_upscale_is_run_again_with_changes(client: TestClient, queue: JobQueue) -> None:
    first = client.post("/v1/upscale", json={"image": picture(), "output_format": "jpeg"}).json()
    again = client.post(f"/v1/jobs/{first['id']}/rerun", json={"model": "two"}).json()
    before, after = (queue.fetch(id).parameters for id in (first["id"], again["id"]))
    assert isinstance(after, UpscaleParameters)
    assert (after.model, after.width, after.output_format) == ("two", 120, "jpeg")
    assert after.inputs == before.inputs
    refused = client.post(f"/v1/jobs/{first['id']}/rerun", json={"seed": 3})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "seed")


def test_a_repeated_call_makes_one_job(client: TestClient) -> None:
    call = {"json": {"image": picture()}, "headers": {"Idempotency-Key": "one"}}
    first, second = (client.post("/v1/upscale", **call) for _ in range(2))  # type: ignore[arg-type]
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["Idempotency-Replayed"] == "true"


def test_upscales_are_found_by_their_task(client: TestClient) -> None:
    upscale = client.post("/v1/upscale", json={"image": picture()}).json()
    client.post("/v1/txt2img", json={"prompt": "a red circle"})
    found = client.get("/v1/jobs", params={"task": "upscale"}).json()["data"]
    assert [job["id"] for job in found] == [upscale["id"]]


def test_an_upscale_is_created_by_the_route_for_any_task(client: TestClient) -> None:
    job = client.post("/v1/jobs", json={"task": "upscale", "image": picture()}).json()
    assert (job["task"], job["model"]) == ("upscale", "four")
    problem = client.post("/v1/jobs", json={"task": "upscale"}).json()["errors"][0]
    assert problem["field"] == "image"


def test_other_services_clients_can_follow_an_upscale(client: TestClient) -> None:
    job = client.post("/v1/upscale", json={"image": picture()}).json()
    prediction = client.get(f"/replicate/v1/predictions/{job['id']}").json()
    assert (prediction["status"], prediction["logs"], prediction["input"]["scale"]) == ("starting", "", 4)
