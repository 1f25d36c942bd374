"""The FLUX.1 tools give, bit for bit, what a direct call of their pipeline gives with the same parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.peaks import TOLERANCE, candidates_of
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.bare_diffusers import make_pipeline
from tests.support.flux_tools import with_flux_tools
from tests.support.jobs import (
    INPUT_IMAGES,
    Pixels,
    complete_job,
    decode_pixels,
    generate_pixels,
    make_job,
    run_jobs,
)
from worker.pool.pool import PLANNED_SHARE, Pool

IMAGE, MASK = INPUT_IMAGES["inputs/image.png"], INPUT_IMAGES["inputs/mask.png"]
CONTROL = INPUT_IMAGES["inputs/control.png"]
REFERENCE = INPUT_IMAGES["inputs/reference.png"]
_START = {"image": IMAGE, "mask_image": MASK, "strength": 0.6}
#: Family and mode -> the class, and the arguments that its call has beside the common ones.
CALLS: dict[tuple[str, Mode], tuple[str, dict[str, Any]]] = {
    ("flux-kontext", Mode.TXT2IMG): ("FluxKontextPipeline", {}),
    ("flux-kontext", Mode.INPAINT): ("FluxKontextInpaintPipeline", _START),
    ("flux-kontext", Mode.EDIT): ("FluxKontextPipeline", {"image": REFERENCE}),
    ("flux-kontext", Mode.EDIT_INPAINT): (
        "FluxKontextInpaintPipeline", _START | {"image_reference": REFERENCE},
    ),
    ("flux-control", Mode.TXT2IMG): ("FluxControlPipeline", {"control_image": CONTROL}),
    ("flux-control", Mode.IMG2IMG): (
        "FluxControlImg2ImgPipeline", {"control_image": CONTROL, "image": IMAGE, "strength": 0.6},
    ),
    ("flux-control", Mode.INPAINT): ("FluxControlInpaintPipeline", _START | {"control_image": CONTROL}),
    ("flux-fill", Mode.INPAINT): ("FluxFillPipeline", _START | {"strength": 1.0}),
}  # fmt: skip


def _call(family: str, job: JobParameters, source: str, **more: Any) -> list[Image.Image]:
    """The images of a direct call, which knows nothing of Darkroom but what the job's fields are called."""
    class_name, arguments = CALLS[family, job.mode]
    # Without these, Kontext chooses the sizes of output and reference itself.
    sizes = {"max_area": job.width * job.height, "_auto_resize": False} if "Kontext" in class_name else {}
    pipeline = make_pipeline(Path(source), class_name)
    images: list[Image.Image] = pipeline(
        prompt="a red circle", width=job.width, height=job.height, num_inference_steps=2, max_sequence_length=64,
        guidance_scale=job.guidance_scale, generator=[torch.Generator().manual_seed(seed) for seed in job.seeds],
        num_images_per_prompt=job.num_images, **arguments, **sizes, **more,
    ).images  # fmt: skip
    return images


@pytest.mark.parametrize(("family", "mode"), list(CALLS))
def test_a_job_equals_a_direct_call_of_the_pipeline_bit_for_bit(
    family: str, mode: Mode, flux_tools: Catalogue, tools_pool: Pool, storage: Storage
) -> None:
    job = make_job(flux_tools, family, mode, num_inference_steps=2)

    (expected,) = _call(family, job, flux_tools.model(job.model).source)

    if job.mask_image is not None:
        expected = Image.composite(expected, IMAGE, MASK)  # what the mask leaves black is the input's
    assert np.array_equal(generate_pixels(job, tools_pool, storage), _pixels(expected))


def test_several_edits_with_a_negative_prompt_equal_a_direct_call(
    flux_tools: Catalogue, tools_pool: Pool, storage: Storage
) -> None:
    more: dict[str, Any] = {"true_cfg_scale": 2.0, "negative_prompt": "a blue square"}
    fields: dict[str, Any] = {"num_inference_steps": 2, "num_images": 2, "width": 64, "height": 80, **more}
    job = make_job(flux_tools, "flux-kontext", Mode.EDIT, **fields)

    expected = _call("flux-kontext", job, flux_tools.model(job.model).source, **more)

    files, _ = complete_job(job, tools_pool, storage)
    found = [decode_pixels(file) for file in files]
    assert np.array_equal(found, [_pixels(image) for image in expected])


def test_every_mode_of_the_tools_is_compared_with_its_pipeline(flux_tools: Catalogue) -> None:
    tools = [row.family_spec for row in flux_tools.models if row.family == "flux" and row.pipeline is not None]
    assert {(family.id, mode) for family in tools for mode in family.modes} == set(CALLS)


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"), dtype=np.int16)


@pytest.fixture(scope="module")
def wide_tools(shipped: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Tools of the shipped FLUX.1, whose activations are most of what its calls take."""
    models = tuple(row for row in shipped.models if row.id != "shapes-kontext")  # it only edits, and comes first
    return with_flux_tools(shipped.model_copy(update={"models": models}), tmp_path_factory.mktemp("tools"))


@pytest.mark.parametrize("mode", [Mode.EDIT, Mode.INPAINT])
def test_the_tokens_of_references_are_in_the_plan(mode: Mode, wide_tools: Catalogue, storage: Storage) -> None:
    """Also those of the image itself, which is the reference of an inpaint that has no other."""
    fields: dict[str, Any] = {"width": 128, "height": 128, "strength": 1.0, "num_inference_steps": 1}
    job = make_job(wide_tools, "flux-kontext", mode, **fields)
    sizes = [reference.model_copy(update={"width": 256, "height": 256}) for reference in job.references]
    job = job.model_copy(update={"references": tuple(sizes)})
    planned = candidates_of(wide_tools, job)[-1]
    pool = Pool(wide_tools, device="cpu", budget_bytes=int(planned.peak_bytes / PLANNED_SHARE) + 1)

    (result,) = run_jobs(job, pool, storage)

    memory = result.receipt.memory
    assert memory.plan == planned.name
    assert 0.85 < memory.peak_bytes / planned.peak_bytes <= 1 + TOLERANCE
