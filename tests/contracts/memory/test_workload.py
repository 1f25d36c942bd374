"""Workloads of requests."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.catalogue.families import Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.workload import default_workload, workload_of
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


@pytest.mark.parametrize(
    ("family", "read", "before"),
    [
        ("hunyuandit", 256, 0),  # its T5 reads as many of any prompt
        ("kolors", 256, 0),
        ("deepfloyd", 77, 0),
        ("sana", 300, 215),
        ("ovis-image", 256, 28),
        ("qwen-image", 512, 34),
        ("sdxl", 0, 0),
    ],
)
def test_a_prompt_is_as_long_as_the_encoder_reads_it_with_what_is_before_it(
    family: str, read: int, before: int
) -> None:
    size: dict[str, Any] = {"width": 256, "height": 256}
    for shape in (workload_of(family, job(family, **size)).shape, default_workload(model(family)).shape):
        assert (shape.text_tokens, shape.instruction_tokens) == (read, before)
        assert shape.read_by_encoder.tokens == read + before


def test_a_prompt_that_is_not_filled_up_has_no_more_tokens_than_bytes() -> None:
    row = ModelSpec(id="m", family="qwen-image", source="somebody/model", pipeline="QwenImageEditPipeline")
    fields = {"prompt": "red", "references": ["-"], "width": 256, "height": 256}
    edited = resolve(REQUESTS[Task.EDIT].model_validate(fields), row, {"references.0": IMAGE})
    references = row.family_spec.references
    assert references is not None
    tokens = sum(references.tokens_of(one.width, one.height) for one in edited.references)
    shape = workload_of("qwen-image-edit", edited).shape
    assert (shape.text_tokens, shape.instruction_tokens) == (len("red") + tokens, 64)


@pytest.mark.parametrize(("family", "started"), [("sdxl", True), ("sd3", False), ("z-image", False)])
def test_image_and_mask_that_only_a_controlnet_is_given_do_not_start_an_image(family: str, started: bool) -> None:
    control = {"controlnet": "mask"} if family == "sd3" else {"controlnet": "mask", "image": "-"}
    inpaint = job(family, "controlnet", controls=[control], image="-", mask_image="-")
    shape = workload_of(family, inpaint).shape
    assert (shape.started, shape.masked, shape.controls) == (started, started, 1)
    assert shape.control_rows == (2 if started else 1)
    assert workload_of("sd3", job("sd3", "controlnet")).shape.control_rows == 2


def test_a_models_default_workload_is_that_of_a_request_without_parameters() -> None:
    for family in ("sdxl", "sd3", "flux"):
        size: dict[str, Any] = {"width": None, "height": None}
        assert default_workload(model(family)) == workload_of(family, job(family, **size))


@pytest.mark.parametrize(
    ("fields", "windows"),
    [
        ({}, 1),
        ({"prompt": "word " * 100}, 7),  # as many as there could be: a token has at least one byte
        ({"prompt": "a BREAK b BREAK c", "prompt_syntax": "a1111"}, 3),
        ({"prompt": "word " * 100, "long_prompt": "truncate"}, 1),
    ],
)
def test_at_least_the_windows_that_the_longest_prompt_takes_are_counted(
    fields: dict[str, Any], windows: int
) -> None:
    assert workload_of("sdxl", job("sdxl", **fields)).shape.windows == windows
