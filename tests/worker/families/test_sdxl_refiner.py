"""A job with a refiner equals, bit for bit, the two calls of diffusers' documentation; alone, its one."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.storage import Storage
from tests.support.combinations import covering
from tests.support.jobs import (
    INPUT_IMAGES,
    Pixels,
    complete_job,
    decode_pixels,
    generate_pixels,
    make_job,
)
from tests.support.refiner import REFINER
from worker.pool.pool import Pool

IMAGE, MASK = INPUT_IMAGES["inputs/image.png"], INPUT_IMAGES["inputs/mask.png"]
TEXTS = {"prompt": "a red circle", "negative_prompt": "a blue square"}
BOTH = {**TEXTS, "num_inference_steps": 4, "guidance_scale": 3.0}
#: Mode -> class of both calls, what the first one has, what the second one has.
RECIPES: dict[Mode, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    Mode.TXT2IMG: ("", "Img2Img", {"width": 64, "height": 64}, {}),
    Mode.IMG2IMG: ("Img2Img", "Img2Img", {"image": IMAGE, "strength": 0.9}, {}),
    Mode.INPAINT: (
        "Inpaint", "Inpaint", {"image": IMAGE, "mask_image": MASK, "strength": 0.9, "width": 64, "height": 64},
        {"mask_image": MASK, "width": 64, "height": 64},
    ),
}  # fmt: skip
SCHEDULERS = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "heun": ("HeunDiscreteScheduler", {}),
}
REFINING = {"model": REFINER, "switch_at": 0.6}


@cache
def _parts(folder: str, name: str) -> Any:
    pipeline_class = getattr(diffusers, f"StableDiffusionXL{name}Pipeline")
    pipeline = pipeline_class.from_pretrained(folder, dtype=torch.float32)
    return pipeline, pipeline.scheduler.config


def _pipeline(folder: str, name: str, scheduler: str) -> Any:
    pipeline, config = _parts(folder, name)
    class_name, changed = SCHEDULERS[scheduler]
    pipeline.scheduler = getattr(diffusers, class_name).from_config(config, **changed)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _recipe(catalogue: Catalogue, mode: Mode, scheduler: str, seeds: list[int], **refining: Any) -> list[Pixels]:
    """The images of two direct calls, one of each pipeline, by a script that knows nothing of Darkroom."""
    first, second, start, more = RECIPES[mode]
    base = _pipeline(str(catalogue.root / catalogue.model("shapes-sdxl").source), first, scheduler)
    refiner = _pipeline(catalogue.model(REFINER).source, second, scheduler)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    count = {"num_images_per_prompt": len(seeds)}
    listed = {name: [value] * len(seeds) if name == "image" else value for name, value in start.items()}
    latents = base(**BOTH, **listed, **count, denoising_end=0.6, output_type="latent", generator=generators).images
    images = refiner(
        **{**BOTH, **refining}, **more, **count, denoising_start=0.6, image=latents, generator=generators
    ).images
    if mode is Mode.INPAINT:  # what the mask leaves black is the input's
        images = [Image.composite(image, IMAGE, MASK) for image in images]
    return [np.asarray(image, dtype=np.int16) for image in images]


def _job(catalogue: Catalogue, mode: Mode, scheduler: str = "euler", **fields: Any) -> Any:
    fields = {"refiner": REFINING, "scheduler": scheduler, **BOTH, **fields}
    more: dict[str, Any] = {} if mode is Mode.TXT2IMG else {"strength": 0.9}
    more |= {"mask_blur": 0} if mode is Mode.INPAINT else {}
    return make_job(catalogue, "sdxl", mode, **fields, **more)


@pytest.mark.parametrize(("mode", "scheduler"), covering(list(product(RECIPES, SCHEDULERS))))
def test_a_refined_image_equals_that_of_the_two_calls(
    mode: Mode, scheduler: str, refined: Catalogue, refined_pool: Pool, storage: Storage
) -> None:
    job = _job(refined, mode, scheduler)

    ours = generate_pixels(job, refined_pool, storage)

    assert np.array_equal(ours, _recipe(refined, mode, scheduler, [7])[0])


def test_ratings_steps_and_several_images_reach_the_second_call(
    refined: Catalogue, refined_pool: Pool, storage: Storage
) -> None:
    ratings = {"aesthetic_score": 9.0, "negative_aesthetic_score": 1.0}
    refiner = {**REFINING, **ratings, "steps": 6}
    job = _job(refined, Mode.TXT2IMG, num_images=2, refiner=refiner)

    files, _ = complete_job(job, refined_pool, storage)

    theirs = _recipe(refined, Mode.TXT2IMG, "euler", [7, 8], **ratings, num_inference_steps=6)
    assert np.array_equal([decode_pixels(file) for file in files], theirs)


@pytest.mark.parametrize("mode", [Mode.IMG2IMG, Mode.INPAINT])
def test_a_refiner_alone_equals_a_direct_call(
    mode: Mode, refined: Catalogue, refined_pool: Pool, storage: Storage
) -> None:
    fields: dict[str, Any] = {"strength": 0.9, "scheduler": "euler", **BOTH}
    job = make_job(refined, "sdxl-refiner", mode, **fields)

    ours = generate_pixels(job, refined_pool, storage)

    _, name, start, _ = RECIPES[mode]
    pipeline = _pipeline(refined.model(REFINER).source, name, "euler")
    image = pipeline(**BOTH, **start, generator=torch.Generator("cpu").manual_seed(7)).images[0]
    image = Image.composite(image, IMAGE, MASK) if mode is Mode.INPAINT else image
    assert np.array_equal(ours, np.asarray(image, dtype=np.int16))
