"""Weights that stay packed on the device, whatever packed them: as the planner counts them, and their values.

Those of a GGUF file and bitsandbytes' are unpacked by a layer of their own; those that torchao quantizes are
tensors of a class that computes with the plain tensors inside it. Knows no files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from contracts.catalogue.quantizations import QUANTIZATIONS
from contracts.weights.counts.parameter_counts import AnyPacked
from contracts.weights.quantized_files import QuantizedTensor
from worker.checkpoints.quantized import bitsandbytes_weights, gguf_files

#: torchao's class of a weight -> the quantization that makes it.
_KINDS = {row.tensor: kind for kind, row in QUANTIZATIONS.items()}


def is_packed(tensor: Any) -> bool:
    """Whether a tensor or parameter is packed."""
    return gguf_files.is_packed(tensor) or is_quantized(tensor) or bitsandbytes_weights.is_packed(tensor)


def is_quantized(tensor: Any) -> bool:
    """Whether a tensor or parameter is one of torchao's."""
    return is_traceable_wrapper_subclass(tensor)


def describe(tensor: Any) -> AnyPacked:
    """Describe a packed parameter as the planner counts it."""
    if gguf_files.is_packed(tensor):
        return gguf_files.describe(tensor)
    if bitsandbytes_weights.is_packed(tensor):
        return bitsandbytes_weights.describe(tensor)
    return QuantizedTensor(_KINDS[type(tensor).__name__], tuple(tensor.shape))


def computed_dtype(layer: torch.nn.Module) -> torch.dtype:
    """The dtype in which a layer with a packed weight computes."""
    weight: Any = layer.weight
    # LLM.int8() computes in 16 bits whatever it is given.
    noted: Any = getattr(layer, "compute_dtype", None) or torch.float16
    dtype: torch.dtype = weight.dtype if is_quantized(weight) else noted
    return dtype


def unpack(layer: torch.nn.Module) -> torch.Tensor:
    """Make the values of a layer's packed weight, in the dtype in which it computes."""
    weight: Any = layer.weight
    if is_quantized(weight):
        values: torch.Tensor = weight.dequantize()
        return values
    if bitsandbytes_weights.is_packed(weight):
        return bitsandbytes_weights.unpack(layer).to(computed_dtype(layer))
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    unpacked: torch.Tensor = dequantize_gguf_tensor(weight).to(computed_dtype(layer))
    return unpacked
