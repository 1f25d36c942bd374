"""Which errors of torch and CUDA's libraries mean that memory ran out, and which that the device failed."""

from __future__ import annotations

import pytest
import torch

from contracts.jobs.failures import FailureCode, JobFailed
from worker.runtime.out_of_memory import DeviceFailed, is_device_error, is_out_of_memory, raise_if_device_failed

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError("the host has no 5 bytes left for weights"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: out of memory"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]
DEVICE_FAILED = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_every_failed_allocation_is_out_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_device_error(error)
    raise_if_device_failed(error, torch.device("cpu"))


@pytest.mark.parametrize("error", DEVICE_FAILED, ids=str)
def test_every_other_error_of_the_device_means_that_it_failed(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(DeviceFailed, match=str(error).split(":")[0]):
        raise_if_device_failed(error, torch.device("cpu"))


def test_an_error_that_says_what_a_device_error_means_for_a_client_is_one_of_the_device() -> None:
    refusal = JobFailed(FailureCode.MODEL_LOAD_FAILED, "its files are unusable")
    raise_if_device_failed(refusal, torch.device("cpu"))
    refusal.__cause__ = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(DeviceFailed, match="illegal memory access"):
        raise_if_device_failed(refusal, torch.device("cpu"))


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("CUDA error: no")], ids=str)
def test_errors_of_the_program_mean_neither(error: Exception) -> None:
    assert not is_out_of_memory(error)
    raise_if_device_failed(error, torch.device("cpu"))


def test_an_error_that_is_still_pending_on_the_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: torch.device) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    with pytest.raises(DeviceFailed, match="illegal memory access"):
        raise_if_device_failed(ValueError("any"), torch.device("cuda:0"))
