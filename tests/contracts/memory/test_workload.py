"""Workloads of requests."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.catalogue.families import Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.plan import default_workload, workload_of
from contracts.requests.defaults import resolve
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS

IMAGE = StoredImage("-", 512, 256)
_INPUTS: dict[str, dict[str, Any]] = {
    "txt2img": {},
    "img2img": {"image": "-"},
    "inpaint": {"image": "-", "mask_image": "-"},
    "controlnet": {"controls": [{"controlnet": "canny", "image": "-"}] * 2},
}


def job(family: str, task: str = "txt2img", **fields: Any) -> JobParameters:
    body: dict[str, Any] = {"prompt": "-", "width": 512, "height": 256, **_INPUTS[task], **fields}
    paths: list[str] = [path for path in ("image", "mask_image") if path in body]
    paths += [f"controls.{number}.image" for number in range(len(body.get("controls", ())))]
    request = REQUESTS[task].model_validate(body)  # type: ignore[index]
    return resolve(request, model(family), dict.fromkeys(paths, IMAGE))


def model(family: str) -> ModelSpec:
    return ModelSpec(id="m", family=family, source="somebody/model")


@pytest.mark.parametrize(
    ("family", "fields", "guided"),
    [
        ("sdxl", {}, True),
        ("sdxl", {"guidance_scale": 1.0}, False),
        ("sd3", {"guidance_scale": 4.0}, True),
        ("sd3", {"guidance_scale": 0.0}, False),
        ("flux", {}, False),
        ("flux", {"true_cfg_scale": 4.0, "negative_prompt": "-"}, False),
    ],
)
def test_guidance_doubles_the_denoisers_batch_where_both_passes_run_at_once(
    family: str, fields: dict[str, Any], guided: bool
) -> None:
    assert workload_of(family, job(family, **fields)).shape.guided is guided


@pytest.mark.parametrize(
    ("task", "started", "masked", "controls"),
    [
        ("txt2img", False, False, 0),
        ("img2img", True, False, 0),
        ("inpaint", True, True, 0),
        ("controlnet", False, False, 2),
    ],
)
def test_the_input_images_of_a_request_are_counted(task: str, started: bool, masked: bool, controls: int) -> None:
    shape = workload_of("sdxl", job("sdxl", task)).shape
    assert (shape.started, shape.masked, shape.controls) == (started, masked, controls)


def test_the_pixels_of_references_are_counted_and_those_of_an_image_that_is_its_own_reference() -> None:
    kontext = ModelSpec(id="m", family="flux", source="somebody/model", pipeline="FluxKontextPipeline")
    edit = REQUESTS[Task.EDIT].model_validate({"prompt": "-", "references": ["-"], "width": 256, "height": 256})
    edited = resolve(edit, kontext, {"references.0": IMAGE})
    inpaint = REQUESTS[Task.INPAINT].model_validate({"prompt": "-", **_INPUTS["inpaint"]})
    inpainted = resolve(inpaint, kontext, dict.fromkeys(("image", "mask_image"), IMAGE))

    assert workload_of("flux-kontext", edited).shape.reference_pixels == 512 * 256
    assert workload_of("flux-kontext", inpainted).shape.reference_pixels == 512 * 256
    assert workload_of("flux", inpainted).shape.reference_pixels == 0


def test_size_images_and_prompt_length_are_the_jobs_unless_more_images_are_given() -> None:
    workload = workload_of("flux", job("flux", num_images=3, max_sequence_length=128, num_inference_steps=9))
    assert (workload.shape.width, workload.shape.height, workload.shape.images) == (512, 256, 3)
    assert (workload.shape.text_tokens, workload.steps) == (128, 9)
    assert workload_of("flux", job("flux"), images=5).shape.images == 5
    assert workload_of("sdxl", job("sdxl")).shape.text_tokens == 0


def test_a_models_default_workload_is_that_of_a_request_without_parameters() -> None:
    for family in ("sdxl", "sd3", "flux"):
        size: dict[str, Any] = {"width": None, "height": None}
        assert default_workload(model(family)) == workload_of(family, job(family, **size))
