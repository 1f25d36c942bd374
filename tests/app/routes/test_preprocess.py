"""Control images from plain photos, over HTTP: listed, shown, and used by jobs exactly as they were shown."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from contracts.queue.client import JobQueue
from contracts.requests.entry_parameters import ControlParameters
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.images import encode_image, open_png, to_data_url

CATALOGUE = """default_model = "xl"
[[models]]
id = "xl"
family = "sdxl"
source = "org/xl"
[[controlnets]]
id = "edges"
family = "sdxl"
source = "org/edges"
preprocessors = ["canny"]
"""
OPTIONS = {"low_threshold": 50, "high_threshold": 90}


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    (tmp_path / "catalogue.toml").write_text(CATALOGUE, encoding="utf-8")
    return SharedSettings(redis_url=redis_url, data=tmp_path / "data", catalogue=tmp_path / "catalogue.toml")


def photo(size: tuple[int, int] = (300, 200)) -> Image.Image:
    image = Image.new("RGB", size, "yellow")
    ImageDraw.Draw(image).ellipse((60, 40, 180, 160), fill="navy")
    return image


#: A control's fields that are refused, and by which one.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"preprocess": "sharpen"}, "preprocess"),
    ({"preprocess_options": {"sigma": 2}}, "preprocess_options"),
    ({"preprocess": "canny", "preprocess_options": {"sigma": 2}}, "preprocess_options.sigma"),
    (
        {"preprocess": "canny", "preprocess_options": {"high_threshold": 256}},
        "preprocess_options.high_threshold",
    ),
    (
        {"preprocess": "canny", "preprocess_options": {"low_threshold": 50.5}},
        "preprocess_options.low_threshold",
    ),
    (
        {"preprocess": "canny", "preprocess_options": {"low_threshold": 201}},
        "preprocess_options.low_threshold",
    ),
    (
        {"preprocess": "canny", "preprocess_options": {"high_threshold": 9}},
        "preprocess_options.high_threshold",
    ),
    ({"preprocess": "blur", "preprocess_options": {"sigma": "2"}}, "preprocess_options.sigma"),
    ({"preprocess": "blur", "preprocess_options": {"sigma": True}}, "preprocess_options.sigma"),
    ({"preprocess": "blur", "preprocess_options": {"resolution": 4096}}, "preprocess_options.resolution"),
    ({"preprocess": "blur", "preprocess_options": [2]}, "preprocess_options"),
]
#: Bodies of `POST /v1/preprocess`, their status and the field that is told.
UNREADABLE: list[tuple[dict[str, Any], int, str]] = [
    ({"preprocess": "canny"}, 422, "image"),
    ({"image": to_data_url(photo())}, 422, "preprocess"),
    ({"image": "AAAA", "preprocess": "canny"}, 415, "image"),
    ({"image": "upload:nothing", "preprocess": "canny"}, 422, "image"),
    ({"image": "/etc/passwd", "preprocess": "canny"}, 422, "image"),
    ({"image": to_data_url(photo()), "module": "canny"}, 422, "module"),
]


def body_of(control: dict[str, Any], **fields: Any) -> dict[str, Any]:
    entry = {"controlnet": "edges", "image": to_data_url(photo())} | control
    return {"prompt": "a ball", "width": 256, "height": 256, "controls": [entry]} | fields


def control_of(client: TestClient, queue: JobQueue, body: dict[str, Any]) -> ControlParameters:
    answer = client.post("/v1/controlnet", json=body)
    assert answer.status_code == 202, answer.text
    return queue.fetch(answer.json()["id"]).parameters.controls[0]


def show(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/preprocess", json={"image": to_data_url(photo()), **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_job_uses_the_very_control_image_that_is_shown(
    client: TestClient, queue: JobQueue, storage: Storage
) -> None:
    control = control_of(client, queue, body_of({"preprocess": "canny", "preprocess_options": OPTIONS}))

    # 300 × 200 covers 256 × 256 when its shorter side has 256 pixels.
    assert control.preprocess_options == {**OPTIONS, "resolution": 256}
    shown = show(client, preprocess=control.preprocess, preprocess_options=control.preprocess_options)
    data = base64.b64decode(shown["b64_json"])
    assert control.image is not None
    assert control.source is not None
    assert storage.read(control.image) == data
    assert control.image.startswith(f"inputs/{shown['sha256']}.")
    assert hashlib.sha256(data).hexdigest() == shown["sha256"]
    assert (shown["width"], shown["height"]) == open_png(data).size == (384, 256)
    assert storage.read(control.source) == encode_image(photo())


def test_a_rerun_makes_the_control_image_of_the_photo_and_not_of_itself(
    client: TestClient, queue: JobQueue
) -> None:
    first = client.post("/v1/controlnet", json=body_of({"preprocess": "invert"})).json()["id"]
    again = client.post(f"/v1/jobs/{first}/rerun", json={})

    assert again.status_code == 202, again.text
    assert queue.fetch(again.json()["id"]).parameters.controls == queue.fetch(first).parameters.controls


def test_two_controls_may_be_made_of_one_photo(client: TestClient, queue: JobQueue) -> None:
    entries = [body_of({"preprocess": name})["controls"][0] for name in ("canny", "canny", "gray")]

    answer = client.post("/v1/controlnet", json=body_of({}, controls=[*entries, body_of({})["controls"][0]]))

    assert answer.status_code == 202, answer.text
    canny, same, gray, plain = queue.fetch(answer.json()["id"]).parameters.controls
    assert canny.image == same.image != gray.image
    assert canny.source == gray.source == plain.image
    assert (plain.source, plain.preprocess_options) == (None, None)


def test_what_is_wrong_is_told_by_its_field_before_anything_is_made(client: TestClient) -> None:
    for control, field in REFUSED:
        job = client.post("/v1/controlnet", json=body_of(control))
        assert job.status_code == 422, (control, job.text)
        assert [problem["field"] for problem in job.json()["errors"]] == [f"controls.0.{field}"]
        if "preprocess" in control:
            shown = client.post("/v1/preprocess", json={"image": to_data_url(photo()), **control})
            assert shown.status_code == 422, (control, shown.text)
            assert [problem["field"] for problem in shown.json()["errors"]] == [field]
    assert client.get("/v1/jobs").json()["data"] == []


def test_the_shown_image_is_as_bounded_as_any_other(client: TestClient) -> None:
    for body, status, field in UNREADABLE:
        answer = client.post("/v1/preprocess", json=body)
        assert answer.status_code == status, (body, answer.text)
        assert field in [problem["field"] for problem in answer.json()["errors"]]


def test_the_list_says_what_each_takes_and_a_default_is_within_the_range(client: TestClient) -> None:
    rows = {row["id"]: row for row in client.get("/v1/preprocessors").json()["data"]}

    assert rows["canny"]["controlnets"] == ["edges"]
    assert [option["id"] for option in rows["canny"]["options"]] == [
        "low_threshold", "high_threshold", "resolution",
    ]  # fmt: skip
    for row in rows.values():
        for option in row["options"]:
            default = option["default"]
            assert default is None or option["minimum"] <= default <= option["maximum"], option
