"""An unknown field is refused with the field that was probably meant."""

from __future__ import annotations

from typing import Any

import pytest

from app.dialects.openai.schema import GenerationRequest
from app.parsing.field_names import _FOREIGN_NAMES, word_unknown_field
from contracts.requests.entries import Control, Lora, Refiner
from contracts.requests.schema import (
    ControlNetRequest,
    Img2ImgRequest,
    InpaintRequest,
    ReferenceEditRequest,
    Txt2ImgRequest,
)


@pytest.mark.parametrize(
    ("kind", "path", "ours"),
    [
        (Txt2ImgRequest, "steps", "num_inference_steps"),
        (Txt2ImgRequest, "cfg_scale", "guidance_scale"),
        (Txt2ImgRequest, "sampler_name", "scheduler"),
        (Txt2ImgRequest, "n", "num_images"),
        (Txt2ImgRequest, "size", "width and height"),
        (Img2ImgRequest, "init_images", "image"),
        (Img2ImgRequest, "denoising_strength", "strength"),
        (Txt2ImgRequest, "numInferenceSteps", "num_inference_steps"),
        (Txt2ImgRequest, "negativePrompt", "negative_prompt"),
        (Txt2ImgRequest, "promt", "prompt"),
        (Txt2ImgRequest, "stepz", "num_inference_steps"),
        (Txt2ImgRequest, "cfg_scal", "guidance_scale"),
        (Img2ImgRequest, "denoising_strenght", "strength"),
        (Txt2ImgRequest, "sampler_nam", "scheduler"),
        (InpaintRequest, "mask", "mask_image"),
        (Txt2ImgRequest, "loras.0.weight", "scale"),
        (ControlNetRequest, "controls.1.weight", "conditioning_scale"),
        (ControlNetRequest, "controls.0.module", "preprocess"),
        (GenerationRequest, "batch_size", "num_images"),
        (GenerationRequest, "steps", "num_inference_steps"),
    ],
)
def test_a_name_of_another_service_is_answered_with_ours(kind: Any, path: str, ours: str) -> None:
    parts = [int(part) if part.isdigit() else part for part in path.split(".")]

    assert word_unknown_field(kind, parts) == f"is not a field of this request; did you mean {ours}?"


def test_a_field_of_other_tasks_is_answered_with_their_routes() -> None:
    routes = "/v1/img2img, /v1/inpaint, /v1/controlnet, /v1/edit"

    assert word_unknown_field(Txt2ImgRequest, ["strength"]).endswith(f"strength is a field of {routes}")
    assert word_unknown_field(Txt2ImgRequest, ["init_image"]).endswith(
        f"did you mean image? It is a field of {routes}"
    )


@pytest.mark.parametrize("name", ["foo", "", "steps" * 10_000, "🎨", "st", "xteps"])
def test_a_name_without_a_meaning_is_only_to_be_removed(name: str) -> None:
    assert word_unknown_field(Txt2ImgRequest, [name]) == "is not a field of this request; remove it"


def test_every_name_of_the_table_stands_for_a_field_that_exists() -> None:
    kinds = (ControlNetRequest, ReferenceEditRequest, Lora, Control, Refiner)

    assert _FOREIGN_NAMES.keys() <= {name for kind in kinds for name in kind.model_fields}
