"""Sana-Sprint gives, bit for bit, what a direct call of its pipeline gives with the same parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import ALL_FAMILIES, Mode
from contracts.errors import InvalidRequest
from contracts.storage import Storage
from tests.support.bare_diffusers import make_pipeline
from tests.support.jobs import INPUT_IMAGES, RecordingWatch, decode_pixels, make_job, run_jobs
from worker.pool.pool import Pool

#: Mode -> the class, and the arguments that its call has beside the common ones.
CALLS: dict[Mode, tuple[str, dict[str, Any]]] = {
    Mode.TXT2IMG: ("SanaSprintPipeline", {}),
    Mode.IMG2IMG: ("SanaSprintImg2ImgPipeline", {"image": INPUT_IMAGES["inputs/image.png"], "strength": 0.6}),
}


@pytest.mark.parametrize(("mode", "steps", "run"), [(Mode.TXT2IMG, 2, 2), (Mode.IMG2IMG, 4, 3)])
def test_jobs_that_share_their_calls_equal_direct_calls_bit_for_bit(
    mode: Mode, steps: int, run: int, flux_tools: Catalogue, tools_pool: Pool, storage: Storage
) -> None:
    fields: dict[str, Any] = {"num_inference_steps": steps, "max_sequence_length": 32, "previews": 2}
    jobs = [
        make_job(flux_tools, "sana-sprint", mode, seed=seed, guidance_scale=guidance, **fields)
        for seed, guidance in ((7, 4.5), (8, 2.0))
    ]
    class_name, arguments = CALLS[mode]
    pipeline = make_pipeline(Path(flux_tools.model(jobs[0].model).source), class_name)
    watch = RecordingWatch()

    results = run_jobs(jobs, tools_pool, storage, watch)

    for job, result in zip(jobs, results, strict=True):
        (expected,) = pipeline(
            "a red circle", width=64, height=64, num_inference_steps=steps, guidance_scale=job.guidance_scale,
            max_sequence_length=32, intermediate_timesteps=1.3 if steps == 2 else None,
            use_resolution_binning=False, generator=torch.Generator().manual_seed(job.seed), **arguments,
        ).images  # fmt: skip
        assert result.status == "completed", result
        assert np.array_equal(decode_pixels(storage.read(result.stored[0].key)), np.asarray(expected))
    assert watch.seen[-1] == (run, run)
    assert len(watch.previews) == 2 * (run - 1)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"negative_prompt": "a blue square"}, "negative_prompt"),
        ({"scheduler": "flow_euler"}, "cannot follow a checkpoint that was trained for SCMScheduler"),
    ],
)
def test_what_cannot_act_is_refused_by_name(fields: dict[str, Any], reason: str, flux_tools: Catalogue) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        make_job(flux_tools, "sana-sprint", **fields)


def test_every_mode_of_sprint_is_compared_with_its_pipeline() -> None:
    assert set(ALL_FAMILIES["sana-sprint"].modes) == set(CALLS)
