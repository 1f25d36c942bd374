"""Sana's VAE, of which one position of the latents is 32 × 32 pixels: tiles, previews, sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import InvalidRequest
from contracts.storage import Storage
from tests.support.bare_diffusers import paint
from tests.support.jobs import RecordingWatch, generate_pixels, make_job, model_of, run_jobs
from worker.pool.pool import Pool

FIELDS: dict[str, Any] = {"width": 128, "height": 96, "guidance_scale": 1.0, "max_sequence_length": 32}


def test_tiles_are_those_of_diffusers(
    catalogue: Catalogue, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, job = Pool(catalogue, device="cpu"), make_job(catalogue, "sana", **FIELDS)
    plan = pool.plan_selector.choose(job, 1).model_copy(update={"tile_side": 64})
    monkeypatch.setattr(pool.plan_selector, "choose", lambda *_: plan)

    ours = generate_pixels(job, pool, storage)

    theirs = paint(
        Path(catalogue.model(model_of(catalogue, "sana")).source),
        "SanaPipeline",
        {"prompt": job.prompt, "num_inference_steps": 2, **FIELDS, "use_resolution_binning": False},
        scheduler="flow_dpmpp_2m",
        seed=7,
        prepare=lambda painter: painter.vae.enable_tiling(64, 64, 32, 32),
    )
    assert np.array_equal(ours, np.asarray(theirs))


def test_a_preview_has_the_images_shape(catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    watch = RecordingWatch()
    run_jobs(make_job(catalogue, "sana", previews=1, **FIELDS), pool, storage, watch)
    ((_, preview),) = watch.previews
    assert (preview.width, preview.height) == (128, 96)


def test_a_size_between_two_positions_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidRequest, match="width: must be a multiple of 32"):
        make_job(catalogue, "sana", **FIELDS | {"width": 80})
