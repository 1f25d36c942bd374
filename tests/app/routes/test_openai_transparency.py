"""OpenAI edits of images with a transparent part, with and without a mask."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from contracts.jobs.records import JobRecord
from contracts.storage import Storage
from tests.support.images import encode_image, encode_solid, mask_with_hole, open_png

EDIT = "/v1/images/edits"
PROMPT = {"prompt": "a red circle"}
OPAQUE = encode_solid("RGB", (64, 64), "blue")


def error_of(response: Any) -> dict[str, Any]:
    assert response.status_code == 422, response.text
    found: dict[str, Any] = response.json()["error"]
    return found


def test_the_transparent_part_of_an_image_without_a_mask_is_regenerated(
    client: TestClient, completed: Callable[[], JobRecord], storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    files = [("image", ("a.png", encode_image(mask_with_hole()), "image/png"))]

    with caplog.at_level(logging.DEBUG, "app.inputs.process"):
        response = client.post(EDIT, data=PROMPT, files=files)

    assert response.status_code == 200, response.text
    parameters = completed().parameters
    assert (parameters.task, parameters.strength) == ("inpaint", 1.0)
    mask = open_png(storage.read(str(parameters.mask_image)))
    assert (mask.getpixel((32, 32)), mask.getpixel((2, 2))) == (255, 0)
    assert len([record for record in caplog.records if "to decode" in record.getMessage()]) == 1


def test_fields_about_masks_act_on_the_transparent_part(
    client: TestClient, completed: Callable[[], JobRecord]
) -> None:
    fields = PROMPT | {"mask_blur": "4", "padding_mask_crop": "8"}

    response = client.post(EDIT, data=fields, files=[("image", ("a.png", encode_image(mask_with_hole())))])

    assert response.status_code == 200, response.text
    parameters = completed().parameters
    assert (parameters.task, parameters.mask_blur, parameters.padding_mask_crop) == ("inpaint", 4, 8)


@pytest.mark.parametrize("field", ["mask_blur", "padding_mask_crop"])
def test_a_field_about_masks_is_refused_where_there_is_nothing_that_it_could_act_on(
    client: TestClient, field: str
) -> None:
    response = client.post(EDIT, data=PROMPT | {field: "4"}, files=[("image", ("a.png", OPAQUE))])

    error = error_of(response)
    assert error["param"] == field
    assert "has no effect without a mask or a transparent part" in error["message"]


def test_a_transparent_part_that_is_cut_off_is_an_error_of_the_image(client: TestClient) -> None:
    image = Image.new("RGBA", (128, 64), "blue")
    image.paste((0, 0, 0, 0), (0, 0, 20, 64))

    response = client.post(
        EDIT, data=PROMPT | {"size": "64x64"}, files=[("image", ("a.png", encode_image(image)))]
    )

    error = error_of(response)
    assert error["param"] == "image"
    assert "changes no pixel: what it regenerates is within (0, 0, 20, 64)" in error["message"]
