"""Which errors mean that memory ran out, and which that the device can no longer be used by this process.

CUDA and its libraries report both as plain `RuntimeError`s, told apart by their texts.
The first is handled in `worker/pool/plan_selector.py` (a smaller plan), the second in `worker/loop/consumer.py`
(release the jobs and exit).
"""

from __future__ import annotations

import torch

#: Texts of torch 2.13, CUDA 13, cuBLAS and cuDNN when an allocation fails.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
#: Texts of errors that come from the device or one of CUDA's libraries.
_DEVICE = (
    "CUDA error",
    "device-side assert",
    "cuDNN error",
    "CUDNN_STATUS_",
    "CUBLAS_STATUS_",
    "NVML_",
    "Triton Error",
)


class DeviceFailed(Exception):
    """The CUDA device no longer works in this process, which must end: the error stays until it does."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def is_device_error(error: BaseException) -> bool:
    """Whether the error came from the device and is not a failed allocation."""
    if is_out_of_memory(error):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _DEVICE)


def raise_if_device_failed(error: BaseException, device: torch.device) -> None:
    """Find out whether a device still works after an error.

    Raises:
        DeviceFailed: the error, or what caused it, came from the device, or another one is pending on it.
    """
    if isinstance(error, DeviceFailed):
        raise error
    cause: BaseException | None = error
    while cause is not None:
        if is_device_error(cause):
            raise DeviceFailed(str(cause).splitlines()[0]) from error
        cause = cause.__cause__
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as pending:
        if not is_out_of_memory(pending):
            raise DeviceFailed(str(pending).splitlines()[0]) from pending
