"""Edits of Qwen-Image give, bit for bit, what a direct call of their pipeline gives with the same references."""

from __future__ import annotations

import hashlib
import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_inpaint as edit_inpaint
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as edit_plus
from diffusers.pipelines.qwenimage import pipeline_qwenimage_layered as layered
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import ALL_FAMILIES, Mode
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.jobs import (
    INPUT_IMAGES,
    Pixels,
    RecordingWatch,
    complete_job,
    decode_pixels,
    generate_pixels,
    make_job,
)
from tests.support.qwen_edits import ImageProcessor
from worker.pool.pool import Pool

IMAGE, MASK = INPUT_IMAGES["inputs/image.png"], INPUT_IMAGES["inputs/mask.png"]
REFERENCE = INPUT_IMAGES["inputs/reference.png"]
TEXTS = {"prompt": "a red circle", "negative_prompt": "a blue square"}
#: Family and mode -> the class, and the arguments that its call has beside the common ones.
CALLS: dict[tuple[str, Mode], tuple[str, dict[str, Any]]] = {
    ("qwen-image-edit", Mode.EDIT): ("QwenImageEditPipeline", {"image": REFERENCE}),
    ("qwen-image-edit", Mode.INPAINT): (
        "QwenImageEditInpaintPipeline", {"image": IMAGE, "mask_image": MASK, "strength": 0.6},
    ),
    ("qwen-image-edit-plus", Mode.EDIT): ("QwenImageEditPlusPipeline", {"image": [REFERENCE]}),
}  # fmt: skip


@cache
def _load(source: str) -> Any:
    processor = ImageProcessor(Path(source) / "processor")
    return diffusers.DiffusionPipeline.from_pretrained(source, processor=processor, dtype=torch.float32)


def _call(job: JobParameters, class_name: str, source: str, **arguments: Any) -> list[Image.Image]:
    """The images of a direct call, which knows nothing of Darkroom but what the job's fields are called."""
    pipeline = getattr(diffusers, class_name)(**_load(source).components)
    pipeline.set_progress_bar_config(disable=True)
    images: list[Image.Image] = pipeline(
        **TEXTS, width=job.width, height=job.height, num_inference_steps=job.num_inference_steps,
        true_cfg_scale=3.0, generator=[torch.Generator().manual_seed(seed) for seed in job.seeds],
        num_images_per_prompt=job.num_images, **arguments,
    ).images  # fmt: skip
    return images


def _job(catalogue: Catalogue, family: str, mode: Mode, **fields: Any) -> JobParameters:
    given: dict[str, Any] = {"true_cfg_scale": 3.0, "num_inference_steps": 2, **TEXTS, **fields}
    return make_job(catalogue, family, mode, **given)


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"), dtype=np.int16)


@pytest.mark.parametrize(("family", "mode"), list(CALLS))
def test_a_job_equals_a_direct_call_of_the_pipeline_bit_for_bit(
    family: str,
    mode: Mode,
    flux_tools: Catalogue,
    tools_pool: Pool,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = _job(flux_tools, family, mode)
    class_name, arguments = CALLS[family, mode]
    # Whatever size it is called with, the class for masks makes images of about a megapixel.
    monkeypatch.setattr(edit_inpaint, "calculate_dimensions", lambda _area, _ratio: (job.width, job.height, None))

    (expected,) = _call(job, class_name, flux_tools.model(job.model).source, **arguments)

    if job.mask_image is not None:
        expected = Image.composite(expected, IMAGE, MASK)  # what the mask leaves black is the input's
    assert np.array_equal(generate_pixels(job, tools_pool, storage), _pixels(expected))


def test_several_images_of_several_references_equal_a_direct_call(
    flux_tools: Catalogue, tools_pool: Pool, storage: Storage
) -> None:
    fields: dict[str, Any] = {"num_images": 2, "references": ["upload:x", "upload:x"], "width": 64, "height": 80}
    job = _job(flux_tools, "qwen-image-edit-plus", Mode.EDIT, **fields)
    second = job.references[1].model_copy(update={"image": "inputs/control.png"})
    job = job.model_copy(update={"references": (job.references[0], second)})
    references = [REFERENCE, INPUT_IMAGES["inputs/control.png"]]

    expected = _call(job, "QwenImageEditPlusPipeline", flux_tools.model(job.model).source, image=references)

    files, _ = complete_job(job, tools_pool, storage)
    assert np.array_equal([decode_pixels(file) for file in files], [_pixels(image) for image in expected])


@pytest.mark.parametrize("size", [(64, 80), (96, 64)])
def test_the_layers_of_a_picture_equal_those_of_a_direct_call_bit_for_bit(
    size: tuple[int, int],
    flux_tools: Catalogue,
    tools_pool: Pool,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields: dict[str, Any] = {"layers": 3, "fit": "stretch", "width": size[0], "height": size[1]}
    job = _job(flux_tools, "qwen-image-layered", Mode.EDIT, **fields, previews=1, keep_latents=True)
    monkeypatch.setattr(layered, "calculate_dimensions", lambda _area, _ratio: size)
    pipeline = diffusers.QwenImageLayeredPipeline(**_load(flux_tools.model(job.model).source).components)
    (expected,) = pipeline(
        image=REFERENCE.resize(size, Image.Resampling.LANCZOS).convert("RGBA"), **TEXTS, layers=3,
        num_inference_steps=2, true_cfg_scale=3.0, generator=torch.Generator().manual_seed(7),
    ).images  # fmt: skip

    watch = RecordingWatch()
    files, receipt = complete_job(job, tools_pool, storage, watch)

    images = [Image.open(io.BytesIO(file)) for file in files]
    assert [(image.mode, image.size) for image in images] == [("RGBA", size)] * 3
    assert [image.tobytes() for image in images] == [image.tobytes() for image in expected]
    assert [json.loads(image.text["darkroom"])["layer"] for image in images] == [0, 1, 2]  # type: ignore[attr-defined]
    assert receipt.seeds == [7, 7, 7]
    assert receipt.pixels_sha256 == [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    assert len(set(receipt.pixels_sha256)) == len(receipt.latents_merkle_root) == 3
    assert [(preview.index, preview.width, preview.height) for _, preview in watch.previews] == [(0, *size)]


def test_every_mode_of_the_edits_is_compared_with_its_pipeline() -> None:
    edits = [family for id, family in ALL_FAMILIES.items() if id.startswith("qwen-image-")]
    assert {(family.id, mode) for family in edits for mode in family.modes} == {
        *CALLS, ("qwen-image-layered", Mode.EDIT),
    }  # fmt: skip


def test_what_the_encoder_sees_is_in_the_key_of_an_embedding(
    flux_tools: Catalogue, tools_pool: Pool, storage: Storage
) -> None:
    job = _job(flux_tools, "qwen-image-edit-plus", Mode.EDIT, prompt="a star", negative_prompt="a ring")
    other = job.references[0].model_copy(update={"image": "inputs/control.png"})
    uses = [
        complete_job(one, tools_pool, storage)[1].embeddings
        for one in (job, job.model_copy(update={"references": (other,)}), job)
    ]
    assert [use.misses for use in uses] == [2, 2, 0]


def test_the_table_has_the_areas_that_diffusers_scales_references_to() -> None:
    source = Path(edit_plus.__file__).read_text(encoding="utf-8")  # its constants are patched here
    found = re.findall(r"^(\w+_IMAGE_SIZE) = (\d+) \* (\d+)$", source, re.MULTILINE)
    areas = {name: int(width) * int(height) for name, width, height in found}
    known = ALL_FAMILIES["qwen-image-edit-plus"].references
    assert known is not None
    assert areas == {"CONDITION_IMAGE_SIZE": known.seen_pixels, "VAE_IMAGE_SIZE": known.scaled_pixels}
