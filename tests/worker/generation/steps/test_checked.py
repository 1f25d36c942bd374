"""A step made again from latents that were kept has the same bits, by fewer calls; another one is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import ALL_FAMILIES, Mode
from contracts.catalogue.schedulers import SCHEDULERS, names_for
from contracts.errors import InvalidRequest
from contracts.jobs.failures import FailureCode
from contracts.provenance.kept_latents import needed_steps, read_latents, refusal, step_name, write_latents
from contracts.provenance.receipts.merkle import hash_leaf
from contracts.requests.entry_parameters import StepCheckParameters
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.combinations import ALL
from tests.support.jobs import complete_job, fail_job, make_job
from worker.pool.pool import Pool

FEW = [
    ("sdxl", Mode.CONTROLNET_INPAINT, "dpmpp_2m_sde"),
    ("sdxl", Mode.IMG2IMG, "heun"),
    ("flux", Mode.TXT2IMG, "flow_dpmpp_2m"),
]
EVERY = [
    (family, mode, scheduler)
    for family in ("sd15", "sdxl", "sd3", "flux")
    for mode in sorted(ALL_FAMILIES[family].modes)
    for scheduler in names_for(ALL_FAMILIES[family].kind)
    if SCHEDULERS[scheduler].steps_before is not None
]
KEY = "inputs/latents.safetensors"


class Kept:
    """A job and the latents that it has kept."""

    def __init__(self, job: JobParameters, pool: Pool, storage: Storage) -> None:
        self.job, self._pool, self._storage = job, pool, storage
        complete_job(job.model_copy(update={"keep_latents": True}), pool, storage)
        (key,) = [key for key in storage.find("images/") if key.endswith(".safetensors")]
        self._header, self._contents = read_latents(storage.read(key))
        self.steps = len(self._contents)
        self._before = SCHEDULERS[job.scheduler].steps_before or 0

    def claimed(self, step: int) -> Sequence[str]:
        """The hashes of each image's latents after a step."""
        content = self._contents[step_name(step)]
        size = len(content) // self.job.num_images
        return [hash_leaf(content[at * size : (at + 1) * size]) for at in range(self.job.num_images)]

    def check_of(self, step: int, **changes: Any) -> JobParameters:
        """The job that makes a step again, with changes to what the receipt says."""
        needed = needed_steps(step, self._before)
        if needed:
            self._storage.write(KEY, write_latents(self._header, self._contents, needed))
        check = StepCheckParameters(step=step, latents=KEY if needed else None)
        return self.job.model_copy(update={"check_step": check, **changes})

    def made(self, step: int, **changes: Any) -> Sequence[str]:
        """The hashes of what a step makes."""
        files, receipt = complete_job(self.check_of(step, **changes), self._pool, self._storage)
        assert files == []
        assert receipt.checked_step is not None
        assert (receipt.checked_step.step, receipt.checked_step.steps) == (step, self.steps)
        return receipt.checked_step.sha256


@pytest.mark.parametrize(("family", "mode", "scheduler"), EVERY if ALL else FEW)
def test_a_step_is_made_again_bit_for_bit(
    family: str, mode: Mode, scheduler: str, pool: Pool, catalogue: Catalogue, storage: Storage
) -> None:
    try:
        job = make_job(catalogue, family, mode, scheduler=scheduler, num_inference_steps=4, num_images=2)
    except InvalidRequest:
        return  # not with this model
    kept = Kept(job, pool, storage)
    for step in range(1, kept.steps + 1) if ALL else (kept.steps - 1, kept.steps):
        assert kept.made(step) == kept.claimed(step), step


def test_it_takes_few_calls_and_finds_what_was_made_otherwise(
    pool: Pool, catalogue: Catalogue, storage: Storage
) -> None:
    lora = {"name": "sdxl-lora", "scale": 0.5}
    job = make_job(catalogue, "sdxl", scheduler="euler_a", num_inference_steps=6, loras=[lora])
    kept = Kept(job, pool, storage)
    calls: list[None] = []
    denoiser = pool.model(kept.job.model).denoiser
    hook = denoiser.register_forward_hook(lambda *_: calls.append(None))
    try:
        assert kept.made(5) == kept.claimed(5)
    finally:
        hook.remove()
    assert len(calls) == 2
    other = kept.job.loras[0].model_copy(update={"scale": 0.51})
    for forged in ({"prompt": "a red circles"}, {"loras": (other,)}):
        assert kept.made(5, **forged) != kept.claimed(5), forged
    _, receipt = complete_job(kept.check_of(5, num_inference_steps=7), pool, storage)
    assert receipt.checked_step is not None
    assert (receipt.checked_step.steps, receipt.checked_step.sha256 == kept.claimed(5)) == (7, False)
    first = next(iter(denoiser.parameters()))
    value = first.detach().view(-1)[0].clone()
    with torch.no_grad():
        first.view(-1)[0] += 1e-3
        try:
            assert kept.made(5) != kept.claimed(5)
        finally:
            first.view(-1)[0] = value
    assert kept.made(1) == kept.claimed(1)  # made from noise; and nothing is left of the others


def test_latents_of_another_job_and_steps_that_it_lacks_are_told(
    pool: Pool, catalogue: Catalogue, storage: Storage
) -> None:
    kept = Kept(make_job(catalogue, "sdxl", num_inference_steps=4), pool, storage)
    error = fail_job(kept.check_of(3, width=80), pool, storage)
    assert error.code is FailureCode.INPUT_INCOMPATIBLE
    assert error.message.startswith("check_step.latents are (1, 4, ")
    error = fail_job(kept.check_of(5), pool, storage)
    assert (error.code, error.message) == (
        FailureCode.INPUT_INCOMPATIBLE,
        "the job has 4 steps, and no step 5",
    )
    storage.delete(KEY)
    late = kept.job.model_copy(update={"check_step": StepCheckParameters(step=3, latents=KEY)})
    assert fail_job(late, pool, storage).code is FailureCode.INPUT_MISSING


def test_what_depends_on_all_earlier_steps_is_known(catalogue: Catalogue) -> None:
    job = make_job(catalogue, "sdxl", num_inference_steps=10)
    assert refusal(job) is None
    for changes, cause in (
        ({"scheduler": "unipc"}, "scheduler unipc"),
        ({"speed": "fast"}, "speed fast"),
        ({"hires": {"scale": 1.5}}, "several stages"),
    ):
        reason = refusal(make_job(catalogue, "sdxl", num_inference_steps=10, **changes))
        assert reason is not None
        assert cause in reason
