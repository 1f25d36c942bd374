"""The operations on a job's receipt, beside torch's own count around the run."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.storage import Storage
from tests.support.combinations import usual_or_all
from tests.support.jobs import complete_job, make_job, run_jobs
from worker.engine.flops import FlopTable
from worker.engine.job import Usage
from worker.pool.pool import Pool

RUNS = [("sdxl", Mode.CONTROLNET), ("sd3", Mode.TXT2IMG), ("flux", Mode.IMG2IMG)]


@pytest.mark.parametrize(("family", "mode"), usual_or_all(RUNS[0], RUNS))
def test_a_receipt_has_the_operations_that_torch_counts_in_the_run(
    family: str, mode: Mode, trained: Catalogue, trained_pool: Pool, storage: Storage
) -> None:
    """Text encoders, denoiser with both passes of the guidance, ControlNet, VAE; bit for bit."""
    job = make_job(trained, family, mode, prompt=f"counted, {family}", num_inference_steps=1, strength=1.0)
    # Without the fused kernels of the CPU, which torch does not count.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        _, receipt = complete_job(job, trained_pool, storage)
    assert receipt.flops == counted.get_total_flops() > 0


def test_a_job_in_joined_calls_has_the_operations_of_its_own_rows(
    trained: Catalogue, trained_pool: Pool, storage: Storage
) -> None:
    """Also: a prompt that is in the cache is not computed again, and not counted."""
    batch = [make_job(trained, "sdxl", seed=seed, batchable=True, prompt="two") for seed in (1, 2)]
    first, second = (outcome.receipt for outcome in run_jobs(batch, trained_pool, storage))
    (alone,) = (outcome.receipt for outcome in run_jobs(batch[:1], trained_pool, storage))
    assert first.joined
    assert second.flops == alone.flops
    assert first.flops is not None
    assert alone.flops is not None
    assert first.flops > alone.flops


def test_what_was_not_counted_leaves_a_job_without_a_figure() -> None:
    usage, rows = Usage(), torch.zeros(1, 4)
    usage.note_flops(2.0)
    usage.note_flops(3.0)
    assert usage.flops == 5.0
    usage.note_flops(FlopTable().of(torch.nn.Linear(4, 4), "__call__", {"input": rows}))
    usage.note_flops(4.0)
    assert usage.flops is None
