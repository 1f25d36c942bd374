"""`speed: fast` skips denoiser calls as scheduled, in every pipeline, and leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Mode
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.combinations import covering, usual_or_all
from tests.support.jobs import (
    JobStopped,
    RecordingWatch,
    complete_job,
    decode_pixels,
    fail_job,
    make_job,
    run_jobs,
)
from tests.support.trained import TRAINED_FAMILIES
from worker.pool.pool import Pool

FAMILY_IDS = list(TRAINED_FAMILIES)
STEPS = 8
#: Steps of the 8 that are computed: the first three, then every second.
COMPUTED = 5


@pytest.fixture(scope="module")
def catalogue(trained: Catalogue) -> Catalogue:
    """What is predicted must resemble what is computed: trained models."""
    return trained


@pytest.fixture(scope="module")
def pool(trained_pool: Pool) -> Pool:
    return trained_pool


def _fast(catalogue: Catalogue, family: str, mode: Mode = Mode.TXT2IMG, **fields: Any) -> JobParameters:
    return make_job(catalogue, family, mode, **{"num_inference_steps": STEPS, "speed": "fast", **fields})


@contextmanager
def _counting(module: torch.nn.Module) -> Iterator[list[int]]:
    """Count how often the inside of a module runs, which a hook on the module itself cannot tell."""
    counts = [0]
    inner = next(child for child in module.modules() if isinstance(child, torch.nn.Linear))

    def count(*_: Any) -> None:
        counts[0] += 1

    handle = inner.register_forward_pre_hook(count)
    try:
        yield counts
    finally:
        handle.remove()


def test_the_schedule_computes_the_steps_that_diffusers_taylorseer_computes() -> None:
    schedule = FAMILIES["sdxl"].step_cache
    assert [step for step in range(STEPS) if schedule.computes(step)] == [0, 1, 2, 4, 6]


@pytest.mark.parametrize(
    ("family", "mode"), covering([*product(FAMILY_IDS, [Mode.TXT2IMG, Mode.INPAINT, Mode.CONTROLNET])])
)
def test_the_denoiser_and_its_controlnets_run_only_at_computed_steps(
    family: str, mode: Mode, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = _fast(catalogue, family, mode, **({"strength": 1.0} if mode is Mode.INPAINT else {}))
    model = pool.ready(job, 1)
    with _counting(model.base.components[model.family.denoiser]) as runs:
        (file,), receipt = complete_job(job, pool, storage)
    assert (runs[0], receipt.predicted_calls) == (COMPUTED, STEPS - COMPUTED)
    if mode is Mode.CONTROLNET:
        net = model.pipeline(mode, job.scheduler, [f"{family}-hint"]).controlnet
        with _counting(net) as runs:
            complete_job(job, pool, storage)
        assert runs[0] == COMPUTED
    (exact,), plain = complete_job(job.model_copy(update={"speed": "exact"}), pool, storage)
    difference = np.abs(decode_pixels(file) - decode_pixels(exact))
    assert plain.predicted_calls == 0
    assert 0 < difference.mean() < 12


def test_each_pass_of_true_guidance_is_predicted_from_its_own_history(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = _fast(catalogue, "flux", true_cfg_scale=3.0, negative_prompt="a blue square")
    (file,), receipt = complete_job(job, pool, storage)
    (exact,), _ = complete_job(job.model_copy(update={"speed": "exact"}), pool, storage)
    assert receipt.predicted_calls == 2 * (STEPS - COMPUTED)
    assert np.abs(decode_pixels(file) - decode_pixels(exact)).mean() < 12


@pytest.mark.parametrize("family", usual_or_all("flux", FAMILY_IDS))
def test_an_exact_job_after_fast_ones_gives_the_same_bytes_and_modules_are_unchanged(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    """After fast jobs that completed, were cancelled half-way, and failed inside the denoiser."""
    exact = make_job(catalogue, family, Mode.CONTROLNET, num_inference_steps=2)
    expected, _ = complete_job(exact, pool, storage)
    fast = _fast(catalogue, family, Mode.CONTROLNET)
    made, _ = complete_job(fast, pool, storage)
    used = Pool(catalogue, device="cpu")
    model = used.ready(fast, 1)
    denoiser = model.base.components[model.family.denoiser]
    net = model.pipeline(fast.mode, fast.scheduler, [f"{family}-hint"]).controlnet
    before = [_state(part) for part in (denoiser, net)]
    with pytest.raises(JobStopped):
        run_jobs(fast, used, storage, RecordingWatch(stop_after=5, error=JobStopped()))
    _break_off(denoiser, fast, used, storage)
    assert complete_job(fast, used, storage)[0] == made
    assert [_state(part) for part in (denoiser, net)] == before
    assert complete_job(exact, used, storage)[0] == expected


def _state(module: torch.nn.Module) -> dict[str, Any]:
    """A module's own attributes, its hooks among them."""
    return {name: dict(value) if isinstance(value, dict) else value for name, value in vars(module).items()}


def _break_off(denoiser: Any, job: JobParameters, pool: Pool, storage: Storage) -> None:
    runs = []

    def fail(*_: Any) -> None:
        runs.append(1)
        if len(runs) == 4:
            raise RuntimeError("something went away")

    inner = next(child for child in denoiser.modules() if isinstance(child, torch.nn.Linear))
    handle = inner.register_forward_pre_hook(fail)
    fail_job(job, pool, storage)
    handle.remove()


def test_it_works_with_adapters_previews_and_other_jobs_in_its_calls(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    loras = [{"name": "flux-lora", "scale": 2.0}]
    job = _fast(catalogue, "flux", loras=loras, previews=3, batchable=True)
    other = job.model_copy(update={"prompt": "a blue square", "seed": 8})
    (alone,), _ = complete_job(job, pool, storage)
    watch = RecordingWatch()
    first, _ = run_jobs([job, other], pool, storage, watch)
    assert first.receipt.joined
    assert first.receipt.predicted_calls == STEPS - COMPUTED
    assert len(watch.previews) == 2 * 3
    shared = decode_pixels(storage.read(first.stored[0].key))
    assert np.abs(shared - decode_pixels(alone)).max() <= 2
    (bare,), _ = complete_job(job.model_copy(update={"loras": ()}), pool, storage)
    (exact,), _ = complete_job(job.model_copy(update={"speed": "exact"}), pool, storage)
    to_exact, to_bare = (np.abs(decode_pixels(alone) - decode_pixels(one)).mean() for one in (exact, bare))
    assert to_exact < to_bare


def test_it_gives_the_same_result_with_the_smallest_plan(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = _fast(catalogue, "flux")
    resident, _ = complete_job(job, pool, storage)
    limited = Pool(catalogue, device="cpu", budget_bytes=2**30)
    while limited.step_down(job, 1):
        pass
    files, receipt = complete_job(job, limited, storage)
    assert set(receipt.placement.values()) & {"streamed"}
    assert (files, receipt.deviations) == (resident, [])
