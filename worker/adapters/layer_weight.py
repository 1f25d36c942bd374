"""The weight of a layer as the numbers that it stands for, packed or not.

A packed weight may have the shape and dtype of its bytes. Adapters that need its values unpack it for a call.
"""

from __future__ import annotations

import torch

from worker.checkpoints.quantized.packed_weights import computed_dtype, is_packed, unpack

#: Layers that an adapter can change.
Layer = torch.nn.Linear | torch.nn.Conv2d


def shape_of(layer: Layer) -> tuple[int, ...]:
    """Outputs, inputs and, of a convolution, its kernel."""
    if isinstance(layer, torch.nn.Linear):
        return layer.out_features, layer.in_features
    return tuple(layer.weight.shape)


def dtype_of(layer: Layer) -> torch.dtype:
    """The dtype that the layer computes in, or float32 where its weight is stored in 8 bits for that."""
    if is_packed(layer.weight):
        return computed_dtype(layer)
    return layer.weight.dtype if layer.weight.dtype.itemsize > 1 else torch.float32


def values_of(layer: Layer) -> torch.Tensor:
    """The weight, of `shape_of`, where it is stored; the values of a packed one are made for the call."""
    return unpack(layer) if is_packed(layer.weight) else layer.weight
