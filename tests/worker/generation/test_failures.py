"""Failures: each has a code and a message for the client, and leaves no trace in the next job."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.jobs.failures import FailureCode
from contracts.metrics import Counters
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.combinations import usual_or_all
from tests.support.jobs import (
    JobStopped,
    RecordingWatch,
    complete_job,
    fail_job,
    make_job,
    run_jobs,
)
from tests.support.trained import TRAINED_FAMILIES
from worker.pool.pool import Pool
from worker.runtime.memory_tracker import MemoryTracker

FAMILY_IDS = list(TRAINED_FAMILIES)


class DeviceAway(Exception):
    """Raised in the denoiser."""


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_what_is_thrown_into_a_job_ends_it_and_leaves_no_trace(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    plain = make_job(catalogue, family, num_inference_steps=1)
    before, _ = complete_job(plain, pool, storage)
    watch = RecordingWatch(stop_after=2, error=JobStopped())
    with_adapter = make_job(catalogue, family, seed=3, loras=[{"name": f"{family}-lora"}])
    with pytest.raises(JobStopped):
        run_jobs(with_adapter, pool, storage, watch)
    assert len(watch.seen) == 2
    assert not storage.exists("images/job0/1/0.png")
    assert complete_job(plain, pool, storage)[0] == before


def test_a_missing_input_fails_the_jobs_that_name_it_but_not_the_next_one(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    plain = make_job(catalogue, "sdxl", num_inference_steps=1)
    before, _ = complete_job(plain, pool, storage)
    lost = make_job(catalogue, "sdxl", Mode.IMG2IMG).model_copy(update={"image": "inputs/gone.png"})
    results = run_jobs([lost, lost], pool, storage)
    assert [result.error.code for result in results] == [FailureCode.INPUT_MISSING] * 2
    assert complete_job(plain, pool, storage)[0] == before


class _Breaking(torch.nn.Module):
    """A forward hook that raises like a failing device."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, *_: object) -> None:
        raise self.error


@pytest.fixture(scope="module")
def stepping_down(catalogue: Catalogue) -> Pool:
    """A pool whose plans become smaller with each failure."""
    return Pool(catalogue, device="cpu")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), "out_of_memory"),
        (RuntimeError("a secret path /root/models"), "internal"),
    ],
)
def test_an_error_in_the_denoiser_becomes_a_code_and_a_plain_message(
    error: Exception, code: str, catalogue: Catalogue, pool: Pool, stepping_down: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, "sdxl", num_inference_steps=1)
    before, _ = complete_job(job, pool, storage)
    hook = stepping_down.model("shapes-sdxl").base.unet.register_forward_pre_hook(_Breaking(error).forward)
    told = fail_job(job, stepping_down, storage)
    hook.remove()
    assert told.code == code
    assert "secret" not in told.message
    assert len(told.message) < 200
    assert complete_job(job, stepping_down, storage)[0] == before


def test_a_result_of_nans_fails_instead_of_giving_a_black_image(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    unet = pool.model("shapes-sdxl").base.unet
    hook = unet.register_forward_hook(lambda module, args, output: (output[0] * float("nan"),))
    error = fail_job(make_job(catalogue, "sdxl"), pool, storage)
    hook.remove()
    assert "NaN or infinite" in error.message


def test_the_result_of_a_failed_job_does_not_keep_the_exception_alive(
    catalogue: Catalogue, pool: Pool, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    """Its traceback would keep the failed job's tensors alive as long as the result."""
    # Pytest keeps what is logged, with its tracebacks.
    caplog.set_level(logging.CRITICAL, "worker.generation.generate")
    raised: list[weakref.ref[DeviceAway]] = []

    def fail(*_: object) -> None:
        error = DeviceAway("the device went away")
        raised.append(weakref.ref(error))
        raise error

    hook = pool.model("shapes-sdxl").base.unet.register_forward_pre_hook(fail)
    results = run_jobs(make_job(catalogue, "sdxl"), pool, storage)
    hook.remove()
    gc.collect()
    assert [result.status for result in results] == ["failed"]
    assert [error() for error in raised] == [None]


# -- out of memory: one more attempt with a smaller plan --------------------------------------------------


def _smaller_than_it_says(catalogue: Catalogue, job: JobParameters, missing_bytes: int) -> tuple[Pool, Counters]:
    """A pool on a device that has some bytes less than its best plan for the job needs."""
    counters = Counters()
    pool = Pool(catalogue, device="cpu", budget_bytes=2**30, counters=counters)
    plan = pool.ready(job, job.num_images).placement.plan
    assert plan is not None
    pool.memory_tracker = MemoryTracker(pool.device, plan.peak_bytes - missing_bytes)
    return pool, counters


@pytest.mark.parametrize("family", usual_or_all("flux", FAMILY_IDS))
def test_a_job_that_runs_out_of_memory_runs_again_with_a_smaller_plan(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, family, num_inference_steps=2, num_images=2)
    other = make_job(catalogue, family, num_inference_steps=2, seed=5)
    expected, expected_other = (complete_job(one, pool, storage)[0] for one in (job, other))
    pool, counters = _smaller_than_it_says(catalogue, job, 2**20)
    files, receipt = complete_job(job, pool, storage)
    assert files == expected
    assert receipt.memory is not None
    assert receipt.memory.ran_out == ["all resident"]
    assert receipt.memory.plan != "all resident"
    assert counters.drain()[f'["out_of_memory_steps","","shapes-{family}"]'] == 1
    again, receipt = complete_job(job, pool, storage)
    assert again == expected
    assert receipt.memory is not None
    assert receipt.memory.ran_out == []
    assert receipt.memory.plan != "all resident"
    # The smaller plan is remembered for calls of this size; a smaller call keeps the best plan.
    files, receipt = complete_job(other, pool, storage)
    assert files == expected_other
    assert receipt.memory is not None
    assert receipt.memory.plan == "all resident"


def test_a_job_that_no_plan_can_run_fails_and_frees_its_tensors(
    catalogue: Catalogue, pool: Pool, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    # pytest would keep logged tracebacks, and with them their tensors.
    caplog.set_level(logging.CRITICAL, "worker.generation.generate")
    job = make_job(catalogue, "flux", num_inference_steps=1)
    expected = complete_job(job, pool, storage)[0]
    before = _tensors()
    limited = Pool(catalogue, device="cpu", budget_bytes=2**19)
    for _ in range(2):
        assert fail_job(job, limited, storage).code == "out_of_memory"
    assert _tensors() > before
    limited.drop(job.model)
    assert _tensors() == before
    limited.memory_tracker = MemoryTracker(limited.device, None)
    assert complete_job(job, limited, storage)[0] == expected


def _tensors() -> int:
    """Count the tensors that are alive in this process."""
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
