"""A job with a cascade equals, bit for bit, the calls of diffusers' documentation: one encoding, two stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.bare_diffusers import paint_both_stages
from tests.support.cascade import CASCADE
from tests.support.images import encode_image
from tests.support.jobs import (
    INPUT_IMAGES,
    Pixels,
    RecordingWatch,
    complete_job,
    decode_pixels,
    generate_pixels,
    make_job,
    run_jobs,
)
from worker.generation.inpainting import soften
from worker.generation.trial import try_model, warm_up
from worker.pool.pool import Pool

TEXTS = {"prompt": "a red circle", "negative_prompt": "a blue square"}
IMAGE, MASK = INPUT_IMAGES["inputs/image.png"], INPUT_IMAGES["inputs/mask.png"]
SMALL, LARGE = (64, 64), (256, 256)
#: What the second call reads in place of the image and mask of the first one.
LARGE_IMAGE = IMAGE.resize(LARGE, Image.Resampling.LANCZOS)
LARGE_MASK = MASK.resize(LARGE, Image.Resampling.BILINEAR)
#: A mask of which latents of 8 × 8 pixels would see nothing; there are none, and it is given as it is.
DETAIL = Image.new("L", SMALL)
DETAIL.paste(255, (33, 33, 39, 39))
LARGE_DETAIL = DETAIL.resize(LARGE, Image.Resampling.BILINEAR)
#: The mask with 4 pixels around it, in either call's images.
AROUND, LARGE_AROUND = (16, 16, 48, 48), (64, 64, 192, 192)
#: Mode -> task in the names of both classes, what the first call has, what the second one has.
RECIPES: dict[Mode, tuple[str, dict[str, Any], dict[str, Any]]] = {
    Mode.TXT2IMG: ("", {"width": 64, "height": 64}, {"width": 256, "height": 256}),
    Mode.IMG2IMG: ("Img2Img", {"image": IMAGE}, {"original_image": LARGE_IMAGE}),
    Mode.INPAINT: (
        "Inpainting", {"image": IMAGE, "mask_image": DETAIL},
        {"original_image": LARGE_IMAGE, "mask_image": LARGE_DETAIL},
    ),
}  # fmt: skip


def _recipe(
    catalogue: Catalogue,
    mode: Mode,
    *starts: dict[str, Any],
    scheduler: str = "ddpm",
    seeds: tuple[int, ...] = (7,),
    **second: Any,
) -> list[Image.Image]:
    """The images of the direct calls.

    Args:
        starts: what each call starts from; none: as in `RECIPES`.
        second: further arguments of the second call.
    """
    task, *usual = RECIPES[mode]
    both = {} if mode is Mode.TXT2IMG else {"strength": 0.8}
    one, other = starts or usual
    calls = (
        {**both, **one, "num_inference_steps": 3, "guidance_scale": 4.0},
        {**both, **other, "num_inference_steps": 2, **second},
    )
    folders = Path(catalogue.model("tiny-deepfloyd").source), Path(catalogue.model(CASCADE).source)
    return paint_both_stages(folders, task, TEXTS, calls, scheduler=scheduler, seeds=seeds)


def _pixels(images: list[Image.Image], mask: Image.Image | None = None) -> list[Pixels]:
    """Pixels of images; what the mask leaves black is the input's."""
    if mask is not None:
        images = [Image.composite(image, LARGE_IMAGE, mask) for image in images]
    return [np.asarray(image, dtype=np.int16) for image in images]


def _job(catalogue: Catalogue, mode: Mode = Mode.TXT2IMG, **fields: Any) -> JobParameters:
    given: dict[str, Any] = {
        **TEXTS, "num_inference_steps": 3, "guidance_scale": 4.0, "cascade": {"model": CASCADE, "steps": 2},
        **({} if mode is Mode.TXT2IMG else {"strength": 0.8}),
        **({"mask_blur": 0} if mode is Mode.INPAINT else {}),
        **fields,
    }  # fmt: skip
    return make_job(catalogue, "deepfloyd", mode, **given)


@pytest.mark.parametrize("mode", RECIPES)
def test_an_image_of_both_stages_equals_that_of_the_direct_calls(
    mode: Mode, cascaded: Catalogue, cascade_pool: Pool, storage: Storage
) -> None:
    storage.write("inputs/mask.png", encode_image(DETAIL))

    ours = generate_pixels(_job(cascaded, mode), cascade_pool, storage)

    theirs = _recipe(cascaded, mode)
    assert np.array_equal(ours, _pixels(theirs, LARGE_DETAIL if mode is Mode.INPAINT else None)[0])


def test_the_cascades_own_fields_and_several_images_reach_the_second_call(
    cascaded: Catalogue, cascade_pool: Pool, storage: Storage
) -> None:
    second: dict[str, Any] = {"guidance_scale": 1.0, "noise_level": 100}
    cascade = {"model": CASCADE, "steps": 2, **second}
    job = _job(cascaded, cascade=cascade, scheduler="ddpm_dpmpp_2m", num_images=2)

    files, _ = complete_job(job, cascade_pool, storage)

    theirs = _recipe(cascaded, Mode.TXT2IMG, scheduler="ddpm_dpmpp_2m", seeds=(7, 8), **second)
    assert np.array_equal([decode_pixels(file) for file in files], _pixels(theirs))


def test_an_inpaints_own_fields_reach_both_calls_which_see_the_same_part(
    cascaded: Catalogue, cascade_pool: Pool, storage: Storage
) -> None:
    second: dict[str, Any] = {"guidance_scale": 1.0, "noise_level": 100, "strength": 1.0}
    cascade = {"model": CASCADE, "steps": 2, **second}
    job = _job(cascaded, Mode.INPAINT, cascade=cascade, num_images=2, padding_mask_crop=4, mask_blur=2)

    files, _ = complete_job(job, cascade_pool, storage)

    first_start = {
        "image": IMAGE.resize(SMALL, Image.Resampling.LANCZOS, box=AROUND),
        "mask_image": MASK.resize(SMALL, Image.Resampling.BILINEAR, box=AROUND),
    }
    second_start = {
        "original_image": LARGE_IMAGE.resize(LARGE, Image.Resampling.LANCZOS, box=LARGE_AROUND),
        "mask_image": LARGE_MASK.resize(LARGE, Image.Resampling.BILINEAR, box=LARGE_AROUND),
    }
    theirs = _recipe(cascaded, Mode.INPAINT, first_start, second_start, seeds=(7, 8), **second)
    whole = [LARGE_IMAGE.copy() for _ in theirs]
    for image, part in zip(whole, theirs, strict=True):
        image.paste(part.resize((128, 128), Image.Resampling.LANCZOS), LARGE_AROUND)
    blurred = soften(LARGE_MASK, 4 * 2)
    assert np.array_equal([decode_pixels(file) for file in files], _pixels(whole, blurred))


def test_both_stages_are_one_progress_and_one_receipt_of_one_reading(
    cascaded: Catalogue, cascade_pool: Pool, storage: Storage
) -> None:
    watch = RecordingWatch()
    job = _job(cascaded, previews=4, negative_prompt="a green star")

    _, receipt = complete_job(job, cascade_pool, storage, watch)

    assert watch.seen == [(step, 5) for step in range(1, 6)]
    assert [(preview.step, preview.steps) for _, preview in watch.previews] == [(1, 5), (2, 5), (3, 5), (4, 5)]
    assert receipt.cascade is not None
    assert (receipt.model.id, receipt.cascade.id) == ("tiny-deepfloyd", CASCADE)
    assert receipt.model.sha256 != receipt.cascade.sha256
    assert receipt.embeddings.hits + receipt.embeddings.misses == 2
    assert receipt.placement["unet"] == receipt.placement["cascade:unet"] == "cpu"
    assert "cascade:text_encoder" not in receipt.placement


def test_a_cascade_is_the_same_in_company(cascaded: Catalogue, cascade_pool: Pool, storage: Storage) -> None:
    jobs = [
        _job(cascaded, batchable=False),
        _job(cascaded, Mode.INPAINT, batchable=False, seed=9, num_inference_steps=2),
    ]
    alone = [generate_pixels(job, cascade_pool, storage) for job in jobs]

    results = run_jobs(jobs, cascade_pool, storage)

    together = [decode_pixels(storage.read(result.stored[0].key)) for result in results]
    assert all(np.array_equal(one, other) for one, other in zip(together, alone, strict=True))


def test_stage_ii_is_tried_and_warmed_up_in_a_job_of_stage_i(cascade_pool: Pool) -> None:
    try_model(cascade_pool, CASCADE)
    warm_up(cascade_pool, CASCADE)
