"""AUTOMATIC1111's API: calls of Open WebUI and SD.Next's scripts, JPEG and WebP files, options that are null."""

from __future__ import annotations

import base64
import io

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from PIL import ExifTags, Image

from contracts.jobs.records import JobRecord
from tests.support.images import draw_shape, left_half_mask, open_png, to_base64

OPTIONS = "/sdapi/v1/options"


def test_the_calls_of_open_webui_are_answered(client: TestClient, jobs: list[JobRecord]) -> None:
    """Source: `backend/open_webui/routers/images.py` of https://github.com/open-webui/open-webui, a8289745."""
    headers = {"authorization": ""}  # what it sends without a password
    titles = [row["title"] for row in client.get("/sdapi/v1/sd-models", headers=headers).json()]
    model = next(title for title in titles if "sd3" in title)
    options = client.get(OPTIONS, headers=headers).json()
    options["sd_model_checkpoint"] = model
    assert client.post(OPTIONS, json=options, headers=headers).status_code == 200

    body = {
        "prompt": "a red circle",
        "batch_size": 2,
        "width": 64,
        "height": 64,
        "steps": 5,
        "negative_prompt": "blue",
    }
    body |= {"sampler_name": "Euler", "scheduler": "Automatic", "cfg_scale": 3}  # its other settings
    answer = client.post("/sdapi/v1/txt2img", json=body, headers=headers).json()

    assert [open_png(base64.b64decode(image)).size for image in answer["images"]] == [(64, 64)] * 2
    ours = jobs[0].parameters
    assert (ours.model, ours.num_inference_steps, ours.negative_prompt) == (model, 5, "blue")
    assert client.get(OPTIONS, headers=headers).json()["sd_model_checkpoint"] == model


def test_the_calls_of_the_scripts_of_sd_next_are_answered(client: TestClient, jobs: list[JobRecord]) -> None:
    """Source: `cli/api-txt2img.py` and `cli/api-img2img.py` of https://github.com/vladmandic/sdnext, 14234974."""
    model = {"sd_model_checkpoint": "shapes-sdxl"}
    common = {"send_images": True, "prompt": "a red circle", "negative_prompt": "", "steps": 5, "seed": -1}
    common |= {"sampler_name": "Euler a", "width": 64, "height": 64}
    given = {"init_images": [to_base64(draw_shape(), "jpeg")], "mask": to_base64(left_half_mask(), "jpeg")}

    assert client.post(OPTIONS, json=model).status_code == 200
    assert client.post("/sdapi/v1/reload-checkpoint", json=None).status_code == 200
    made = client.post("/sdapi/v1/txt2img", json={**common, "save_images": True}).json()
    changed = client.post("/sdapi/v1/img2img", json={**common, **given, "save_images": False}).json()

    for answer in (made, changed):
        assert open_png(base64.b64decode(answer["images"][0].split(",", 1)[0])).size == (64, 64)
    detailed = client.post("/sdapi/v1/txt2img", json={**common, "detailer": True, "hr_sampler_name": "Euler a"})
    assert (detailed.status_code, "detailer" in detailed.json()["errors"]) == (
        422,
        True,
    )  # the script's --detailer
    assert [job.parameters.task for job in jobs] == ["txt2img", "inpaint"]
    assert {job.parameters.scheduler for job in jobs} == {"euler_a"}


@pytest.mark.parametrize("file_format", ["jpeg", "webp"])
def test_parameters_are_read_from_other_files_of_the_web_ui(client: TestClient, file_format: str) -> None:
    text = "a red circle, ü\nSteps: 9, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x96"
    exif = Image.Exif()
    comment = b"UNICODE\0" + text.encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    file = io.BytesIO()
    draw_shape().save(file, file_format, exif=exif)

    answer = client.post("/sdapi/v1/png-info", json={"image": base64.b64encode(file.getvalue()).decode()}).json()

    assert (answer["info"], answer["items"]) == (text, {"exif comment": text})
    assert (answer["parameters"]["Seed"], answer["parameters"]["Size-2"]) == ("5", "96")


def test_options_that_are_null_stay_as_they_are_and_the_document_says_that_they_may_be(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    fields = schemas["A1111OptionsRequest"]["properties"]
    assert client.post(OPTIONS, json={"samples_save": False, "CLIP_stop_at_last_layers": 2}).status_code == 200

    answer = client.post(OPTIONS, json=dict.fromkeys(fields))

    assert answer.status_code == 200, answer.text
    shown = client.get(OPTIONS).json()
    assert (shown["samples_save"], shown["CLIP_stop_at_last_layers"]) == (False, 2)
    for name, field in fields.items():
        assert Draft202012Validator({**field, "components": {"schemas": schemas}}).is_valid(None), name
