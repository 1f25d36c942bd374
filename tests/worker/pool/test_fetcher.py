"""What a client is told of a model that could not be loaded, and what is left to the memory plans."""

from __future__ import annotations

import pytest
import torch

from contracts.errors import FailureCode, JobFailed
from worker.pool.fetcher import load_errors_as_job_failed


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


def test_any_other_error_names_the_model() -> None:
    with pytest.raises(JobFailed, match="m cannot be loaded: no such weights") as caught:
        fail_with(ValueError("no such weights\nand more"))
    assert caught.value.code is FailureCode.MODEL_LOAD_FAILED
