"""DiT gives, bit for bit, what a direct call of its pipeline gives with the same class, seed and scheduler."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.class_labels import numbers_of, read_labels
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.jobs.failures import FailureCode
from contracts.storage import Storage
from tests.support.bare_diffusers import make_pipeline
from tests.support.jobs import (
    Pixels,
    RecordingWatch,
    complete_job,
    decode_pixels,
    fail_job,
    generate_pixels,
    make_job,
    run_jobs,
)
from tests.support.untrained.dit import ID2LABEL
from worker.generation.trial import try_model, warm_up
from worker.pool.pool import Pool
from worker.sampling.schedulers import make_scheduler

OFFERED = [row.id for row in SCHEDULERS.values() if FAMILIES["dit"].follows(row)]


def paint(source: Path, scheduler: str, label: str | int, seed: int, steps: int, guidance: float) -> Pixels:
    """The image of a script that knows nothing of Darkroom.

    diffusers' pipeline passes its scheduler no generator: noise of single steps would come from torch's own one. A
    guided step is two rows, of which the pipeline throws the second away.
    """
    pipeline = make_pipeline(source, "DiTPipeline", id2label=ID2LABEL)
    row = SCHEDULERS[scheduler]
    pipeline.scheduler = getattr(diffusers, row.class_name).from_config(pipeline.scheduler.config, **row.options)
    generator, unused = torch.Generator().manual_seed(seed), torch.Generator()
    if scheduler in ("lcm", "tcd", "dpmpp_2m_sde"):
        generators = [generator, unused] if guidance > 1 else generator
        pipeline.scheduler.step = partial(pipeline.scheduler.step, generator=generators)
    (number,) = pipeline.get_label_ids([label]) if isinstance(label, str) else [label]
    (image,) = pipeline([number], guidance_scale=guidance, num_inference_steps=steps, generator=generator).images
    return np.asarray(image, dtype=np.int16)


@pytest.mark.parametrize("scheduler", OFFERED)
def test_jobs_that_share_their_calls_equal_direct_calls_with_every_scheduler(
    scheduler: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    source = Path(catalogue.model("tiny-dit").source)
    fields: dict[str, Any] = {"scheduler": scheduler, "num_inference_steps": 3}
    jobs = [
        make_job(catalogue, "dit", class_label="golden retriever", seed=7, guidance_scale=4.0, **fields),
        make_job(catalogue, "dit", class_label=1, seed=9, guidance_scale=1.0, **fields),
    ]

    results = run_jobs(jobs, pool, storage)

    for job, result in zip(jobs, results, strict=True):
        assert result.status == "completed", result
        shown = decode_pixels(storage.read(result.stored[0].key))
        expected = paint(source, scheduler, job.class_label or 0, job.seed, 3, job.guidance_scale or 1.0)
        assert np.array_equal(shown, expected)


def test_each_image_of_a_job_is_the_one_with_its_seed_and_previews_show_each(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    watch = RecordingWatch()
    job = make_job(catalogue, "dit", class_label=1, num_images=2, scheduler="lcm", previews=1)

    files, receipt = complete_job(job, pool, storage, watch)

    alone = make_job(catalogue, "dit", class_label=1, seed=8, scheduler="lcm")
    # As for every family: two rows at once may differ from one in the last bits, and do on some processors.
    assert np.abs(decode_pixels(files[1]) - generate_pixels(alone, pool, storage)).max() <= 1
    assert sorted(preview.index for _, preview in watch.previews) == [0, 1]
    assert watch.seen == [(1, 2), (2, 2)]
    assert receipt.parameters.class_label == 1
    assert receipt.prompt_tokens == {}


def test_a_trial_and_a_warm_up_name_a_class(pool: Pool) -> None:
    try_model(pool, "tiny-dit")
    warm_up(pool, "tiny-dit")


def test_steps_that_are_predicted_change_the_image(catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    exact, fast = (
        generate_pixels(make_job(catalogue, "dit", num_inference_steps=9, speed=speed), pool, storage)
        for speed in ("exact", "fast")
    )
    assert not np.array_equal(exact, fast)


def test_the_pipeline_draws_from_the_global_generator(catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    """Upstream behaviour that the family's `patch` works round (diffusers 0.42)."""
    pipeline = make_pipeline(Path(catalogue.model("tiny-dit").source), "DiTPipeline")
    pipeline.scheduler = make_scheduler("lcm", pipeline.scheduler.config)

    def paint_globally(seed: int) -> Any:
        torch.manual_seed(seed)
        return pipeline([1], num_inference_steps=2, generator=torch.Generator().manual_seed(7), output_type="pt")

    assert not torch.equal(paint_globally(1).images, paint_globally(2).images)
    job = make_job(catalogue, "dit", class_label=1, scheduler="lcm")
    images = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        images.append(generate_pixels(job, pool, storage))
    assert np.array_equal(images[0], images[1])


def test_names_are_those_that_diffusers_reads(catalogue: Catalogue) -> None:
    row = catalogue.model("tiny-dit")
    labels = diffusers.DiTPipeline.from_pretrained(row.source).labels
    assert numbers_of(row.class_labels or {}) == numbers_of(read_labels(ID2LABEL)) == labels
    assert labels["Tinca tinca"] == 0
    assert labels["crane"] == 517


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class_label": "unicorn"}, "class_label must be a number from 0 to 999 or one of the names"),
        ({"width": 128}, "makes images of 64 × 64 only, and the row of tiny-dit says 128 × 64"),
    ],
)
def test_what_the_api_could_not_know_of_a_checkpoint_fails_the_job_with_the_reason(
    changes: dict[str, Any], reason: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    error = fail_job(make_job(catalogue, "dit").model_copy(update=changes), pool, storage)
    assert error.code is FailureCode.INPUT_INCOMPATIBLE
    assert reason in error.message


def test_schedulers_that_the_family_does_not_offer_start_from_scaled_noise() -> None:
    config = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "prediction_type": "epsilon"}
    for row in SCHEDULERS.values():
        if row.kind == "diffusion":
            scheduler = make_scheduler(row.id, config)
            scheduler.set_timesteps(4)
            assert (float(scheduler.init_noise_sigma) != 1) is row.scales_noise, row.id
