"""Copies of small tensors to the device for which the host does not wait, also where diffusers makes them.

A copy from memory that is not page-locked waits until the device has done all that was queued before.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from typing import Any

import torch


def copy_to(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Copy from host memory; to a CUDA device from page-locked memory, which torch keeps until that is done."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def rebound(function: Any, **names: Any) -> Any:
    """A copy of a function for which these global names mean something else; its module stays as it is."""
    copied = types.FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    copied.__kwdefaults__ = function.__kwdefaults__
    copied.__doc__ = function.__doc__
    return copied


class _Torch:
    """The module `torch`, whose `tensor` copies to a device without waiting."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def tensor(data: Any, *, dtype: torch.dtype | None = None, device: Any = "cpu") -> torch.Tensor:
        """Make a tensor from Python's numbers."""
        return copy_to(torch.tensor(data, dtype=dtype), device)


@cache
def with_asynchronous_tensors(pipeline_class: Any) -> Any:
    """The pipeline class in whose `__call__` no `torch.tensor(…, device=…)` waits for the device.

    diffusers' FLUX.1 ControlNet pipelines (0.42) make such a tensor in every step;
    `test_no_step_of_any_pipeline_waits_for_the_device` counts the waits.
    """
    call: Callable[..., Any] = rebound(pipeline_class.__call__.__wrapped__, torch=_Torch())
    return type(pipeline_class.__name__, (pipeline_class,), {"__call__": torch.no_grad()(call)})
