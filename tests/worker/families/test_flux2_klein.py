"""FLUX.2 klein gives, bit for bit, what a direct call of its pipeline gives with the same parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import ALL_FAMILIES, Mode
from contracts.errors import InvalidRequest
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.bare_diffusers import make_pipeline
from tests.support.jobs import INPUT_IMAGES, Pixels, complete_job, decode_pixels, generate_pixels, make_job
from worker.pool.pool import Pool

IMAGE, MASK = INPUT_IMAGES["inputs/image.png"], INPUT_IMAGES["inputs/mask.png"]
REFERENCE = INPUT_IMAGES["inputs/reference.png"]
_START = {"image": IMAGE, "mask_image": MASK, "strength": 0.6}
#: Mode -> the class, and the arguments that its call has beside the common ones.
CALLS: dict[Mode, tuple[str, dict[str, Any]]] = {
    Mode.TXT2IMG: ("Flux2KleinPipeline", {}),
    Mode.INPAINT: ("Flux2KleinInpaintPipeline", _START),
    Mode.EDIT: ("Flux2KleinPipeline", {"image": [REFERENCE]}),
    Mode.EDIT_INPAINT: ("Flux2KleinInpaintPipeline", _START | {"image_reference": [REFERENCE]}),
}


def _call(job: JobParameters, class_name: str, source: str, negative: str = "", **more: Any) -> list[Image.Image]:
    """The images of a direct call, which knows nothing of Darkroom but what the job's fields are called."""
    pipeline = make_pipeline(Path(source), class_name)
    embeds, _ = pipeline.encode_prompt([negative], max_sequence_length=64)
    images: list[Image.Image] = pipeline(
        prompt="a red circle", width=job.width, height=job.height, num_inference_steps=job.num_inference_steps,
        negative_prompt_embeds=embeds, max_sequence_length=64,
        generator=[torch.Generator().manual_seed(seed) for seed in job.seeds],
        num_images_per_prompt=job.num_images, **more,
    ).images  # fmt: skip
    return images


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"), dtype=np.int16)


@pytest.mark.parametrize("mode", list(CALLS))
def test_a_job_equals_a_direct_call_of_the_pipeline_bit_for_bit(
    mode: Mode, flux_tools: Catalogue, tools_pool: Pool, storage: Storage
) -> None:
    fields: dict[str, Any] = {"guidance_scale": 3.0, "max_sequence_length": 64, "negative_prompt": "a blue square"}
    job = make_job(flux_tools, "flux2-klein", mode, num_inference_steps=2, **fields)
    class_name, arguments = CALLS[mode]
    source = flux_tools.model(job.model).source

    (expected,) = _call(job, class_name, source, "a blue square", guidance_scale=3.0, **arguments)

    if job.mask_image is not None:
        expected = Image.composite(expected, IMAGE, MASK)  # what the mask leaves black is the input's
    assert np.array_equal(generate_pixels(job, tools_pool, storage), _pixels(expected))


def test_several_images_of_several_references_equal_a_direct_call(
    flux_tools: Catalogue, tools_pool: Pool, storage: Storage
) -> None:
    fields: dict[str, Any] = {"num_images": 2, "references": ["upload:x", "upload:x"], "width": 64, "height": 80}
    job = make_job(flux_tools, "flux2-klein", Mode.EDIT, max_sequence_length=64, **fields)
    source = flux_tools.model(job.model).source

    expected = _call(job, "Flux2KleinPipeline", source, guidance_scale=4.0, image=[REFERENCE] * 2)

    files, _ = complete_job(job, tools_pool, storage)
    assert np.array_equal([decode_pixels(file) for file in files], [_pixels(image) for image in expected])


def test_a_distilled_one_makes_four_steps_without_guidance(flux_tools: Catalogue) -> None:
    row = flux_tools.model("tiny-flux2-klein-distilled")
    assert {"guidance_scale", "negative_prompt"} <= row.refused
    plain = row.model_copy(update={"defaults": {}})
    assert plain.family_spec.id == "flux2-klein"
    assert not {"guidance_scale", "negative_prompt"} & flux_tools.model("tiny-flux2-klein").refused


@pytest.mark.parametrize(
    ("mode", "fields", "reason"),
    [
        (Mode.EDIT, {"references": ["upload:x"] * 5}, "at most 4 entries for tiny-flux2-klein, got 5"),
        (
            Mode.EDIT_INPAINT,
            {"references": ["upload:x"] * 2},
            "at most 1 entry for tiny-flux2-klein beside mask_im",
        ),
        (Mode.TXT2IMG, {"guidance_scale": 1.0, "negative_prompt": "a"}, "has no effect while guidance_scale is 1"),
        (Mode.TXT2IMG, {"width": 72}, "must be a multiple of 16"),
    ],
)
def test_what_cannot_act_is_refused_by_name(
    mode: Mode, fields: dict[str, Any], reason: str, flux_tools: Catalogue
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        make_job(flux_tools, "flux2-klein", mode, **fields)


def test_every_mode_of_klein_is_compared_with_its_pipeline() -> None:
    assert set(ALL_FAMILIES["flux2-klein"].modes) == set(CALLS)
