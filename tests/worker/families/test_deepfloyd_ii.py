"""A job with a cascade equals, bit for bit, the calls of diffusers' documentation: one encoding, two stages."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.bare_diffusers import SCHEDULERS, make_pipeline
from tests.support.cascade import CASCADE
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
from worker.generation.trial import try_model, warm_up
from worker.pool.pool import Pool

TEXTS = {"prompt": "a red circle", "negative_prompt": "a blue square"}
IMAGE = INPUT_IMAGES["inputs/image.png"]
LARGE = (256, 256)
#: What the second call reads in place of the image of the first one.
LARGE_IMAGE = IMAGE.resize(LARGE, Image.Resampling.LANCZOS)
#: Mode -> class of both calls, what the first one has, what the second one has.
RECIPES: dict[Mode, tuple[str, dict[str, Any], dict[str, Any]]] = {
    Mode.TXT2IMG: ("", {"width": 64, "height": 64}, {"width": 256, "height": 256}),
    Mode.IMG2IMG: ("Img2Img", {"image": IMAGE}, {"original_image": LARGE_IMAGE}),
}  # fmt: skip


@cache
def _pipelines(first: Path, second: Path, name: str, scheduler: str) -> Any:
    pair = make_pipeline(first, f"IF{name}Pipeline"), make_pipeline(second, f"IF{name}SuperResolutionPipeline")
    return pair, [pipeline.scheduler.config for pipeline in pair]


def _recipe(
    catalogue: Catalogue, mode: Mode, scheduler: str, seeds: list[int], strength: float, **second: Any
) -> list[Pixels]:
    """The images of direct calls, by a script that knows nothing of Darkroom."""
    name, start, more = RECIPES[mode]
    folders = [Path(catalogue.model(id).source) for id in ("tiny-deepfloyd", CASCADE)]
    pipelines, configs = _pipelines(*folders, name, scheduler)
    class_name = SCHEDULERS[scheduler][0]
    for pipeline, config in zip(pipelines, configs, strict=True):
        pipeline.scheduler = getattr(diffusers, class_name).from_config(config)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    prompts, negatives = pipelines[0].encode_prompt(
        TEXTS["prompt"], negative_prompt=TEXTS["negative_prompt"], num_images_per_prompt=len(seeds)
    )
    both: dict[str, Any] = {
        "prompt_embeds": prompts, "negative_prompt_embeds": negatives, "generator": generators,
        **({} if mode is Mode.TXT2IMG else {"strength": strength}),
    }  # fmt: skip
    several = {
        key: [value] * len(seeds) if isinstance(value, Image.Image) else value for key, value in start.items()
    }
    small = pipelines[0](**both, **several, num_inference_steps=3, guidance_scale=4.0, output_type="pt").images
    several = {
        key: [value] * len(seeds) if isinstance(value, Image.Image) else value for key, value in more.items()
    }
    images = pipelines[1](**{**both, **several, "image": small, **second}).images
    return [np.asarray(image, dtype=np.int16) for image in images]


def _job(catalogue: Catalogue, mode: Mode = Mode.TXT2IMG, **fields: Any) -> JobParameters:
    given: dict[str, Any] = {
        **TEXTS, "num_inference_steps": 3, "guidance_scale": 4.0, "cascade": {"model": CASCADE, "steps": 2},
        **({} if mode is Mode.TXT2IMG else {"strength": 0.8}),
        **fields,
    }  # fmt: skip
    return make_job(catalogue, "deepfloyd", mode, **given)


@pytest.mark.parametrize("mode", RECIPES)
def test_an_image_of_both_stages_equals_that_of_the_direct_calls(
    mode: Mode, cascaded: Catalogue, cascade_pool: Pool, storage: Storage
) -> None:
    ours = generate_pixels(_job(cascaded, mode), cascade_pool, storage)

    theirs = _recipe(cascaded, mode, "ddpm", [7], 0.8, num_inference_steps=2, guidance_scale=4.0)
    assert np.array_equal(ours, theirs[0])


def test_the_cascades_own_fields_and_several_images_reach_the_second_call(
    cascaded: Catalogue, cascade_pool: Pool, storage: Storage
) -> None:
    second = {"guidance_scale": 1.0, "noise_level": 100}
    cascade = {"model": CASCADE, "steps": 2, **second}
    job = _job(cascaded, cascade=cascade, scheduler="ddpm_dpmpp_2m", num_images=2)

    files, _ = complete_job(job, cascade_pool, storage)

    theirs = _recipe(cascaded, Mode.TXT2IMG, "ddpm_dpmpp_2m", [7, 8], 1.0, num_inference_steps=2, **second)
    assert np.array_equal([decode_pixels(file) for file in files], theirs)


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
    jobs = [_job(cascaded, batchable=False), _job(cascaded, batchable=False, seed=9, num_inference_steps=2)]
    alone = [generate_pixels(job, cascade_pool, storage) for job in jobs]

    results = run_jobs(jobs, cascade_pool, storage)

    together = [decode_pixels(storage.read(result.stored[0].key)) for result in results]
    assert all(np.array_equal(one, other) for one, other in zip(together, alone, strict=True))


def test_stage_ii_is_tried_and_warmed_up_in_a_job_of_stage_i(cascade_pool: Pool) -> None:
    try_model(cascade_pool, CASCADE)
    warm_up(cascade_pool, CASCADE)
