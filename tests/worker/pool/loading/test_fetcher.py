"""What a client is told of a model that could not be loaded, and what is left to the memory plans."""

from __future__ import annotations

import pytest
import torch

from contracts.errors import CatalogueError, NotFound, Unavailable
from contracts.jobs.failures import FailureCode, JobFailed
from worker.checkpoints.places import NotPrepared
from worker.pool.loading.fetcher import load_errors_as_job_failed


def fail_with(error: Exception) -> None:
    def load() -> None:
        raise error

    load_errors_as_job_failed("m", load)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=repr,
)
def test_a_failed_allocation_is_not_a_broken_model(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        fail_with(error)
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError("Error no file named x in directory /root/models"),
            "its files are unusable (OSError); see the worker's log",
        ),
        (CatalogueError("vae/x.safetensors is missing"), "vae/x.safetensors is missing"),
        (CatalogueError("/root/models/x: no such file"), "no such file"),
        (NotFound("model", "m"), "it was removed from the catalogue while the job was waiting; use another one"),
    ],
    ids=repr,
)
def test_any_other_error_names_the_model_and_no_path(error: Exception, message: str) -> None:
    with pytest.raises(JobFailed) as caught:
        fail_with(error)
    assert caught.value.code is FailureCode.MODEL_LOAD_FAILED
    assert caught.value.message == f"m cannot be loaded: {message}"


@pytest.mark.parametrize("error", [NotPrepared("m"), Unavailable("Redis does not answer")], ids=repr)
def test_what_may_be_there_later_is_no_broken_model(error: Exception) -> None:
    with pytest.raises(type(error)):
        fail_with(error)
