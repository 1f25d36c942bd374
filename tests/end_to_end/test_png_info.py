"""The request read from a file of this service makes the same image again, whatever the file's format."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.images import draw_shape, encode_image
from tests.support.running_service import RunningService

SMALL = {"width": 64, "height": 64, "num_inference_steps": 2}
WORDS = {"prompt": "a (red:1.2) circle", "prompt_syntax": "a1111", "negative_prompt": "green, — ü"}


def read(service: RunningService, file: bytes) -> Any:
    response = service.http.post(
        "/v1/png-info", content=file, headers={"Content-Type": "application/octet-stream"}
    )
    return response.raise_for_status().json()


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_the_second_image_of_a_job_is_made_again_from_its_file(
    service: RunningService, output_format: str
) -> None:
    loras = [{"name": "shapes-sdxl-tint", "scale": 0.5}]
    fields = {**WORDS, **SMALL, "seed": 7, "num_images": 2, "loras": loras, "output_format": output_format}
    made = service.run("txt2img", **fields)

    answer = read(service, service.bytes_of(made, 1))
    shown = service.http.get(f"/v1/jobs/{made['id']}/images/1/parameters").raise_for_status().json()
    again = service.run(**answer["request"])

    assert (answer["program"], answer["missing"], answer["not_read"]) == ("darkroom", [], [])
    assert answer["request"] == shown["request"]
    assert service.bytes_of(again, answer["n"]) == service.bytes_of(made, 1)


def test_an_image_made_from_an_upload_is_made_again_from_its_file(service: RunningService) -> None:
    headers = {"Content-Type": "image/png"}
    upload = service.http.post("/v1/uploads", content=encode_image(draw_shape()), headers=headers).json()["id"]
    made = service.run("img2img", **WORDS, **SMALL, image=upload, strength=0.5)

    answer = read(service, service.bytes_of(made))

    assert answer["request"]["image"] == upload
    assert service.bytes_of(service.run(**answer["request"])) == service.bytes_of(made)
