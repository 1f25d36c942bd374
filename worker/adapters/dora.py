"""Computes what kohya's DoRA changes in one layer's output (https://arxiv.org/abs/2402.09353).

PEFT's DoRA, for which a request's scale counts another way, is in `low_rank.py`. Knows neither files, models nor
images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from worker.adapters.layer_weight import Layer, values_of
from worker.adapters.low_rank import Change
from worker.adapters.weight_differences import Difference, apply_layer, by_channel

#: lycoris-lora adds it to magnitudes, so that none is zero.
_EPSILON = torch.finfo(torch.float32).eps


@dataclass
class Dora:
    """DoRA of kohya and lycoris-lora: the changed weight's rows, or columns, get lengths of their own.

    A request's scale counts as in lycoris-lora: the difference acts whole, and the lengths go that part of the
    way. Scale 0 does nothing.

    Attributes:
        difference: of the weight, before that.
        magnitude: the lengths, one a row, or one a column.
        on_input: whether they are of columns, which are the channels of the input.
    """

    difference: Difference
    magnitude: torch.Tensor
    on_input: bool

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return self.difference.size_bytes + self.magnitude.nbytes

    @property
    def workspace_values(self) -> int:
        """Values that a call makes and forgets again."""
        return self.difference.workspace_values

    def scaled(self, layer: Layer, weight: float) -> Change:
        """Return the change of the layer's output at a request's scale."""
        if weight == 0:
            return lambda _, output: output
        return _dora_change(self, layer, weight)

    def factors(self, layer: Layer, weight: float, inputs: torch.Tensor) -> torch.Tensor:
        """By how much each row or column is longer than without DoRA, minus 1; in float32.

        Args:
            weight: the request's scale.
            inputs: of the layer, on the device where it computes.
        """
        self.difference.move_to(inputs)
        changed = values_of(layer).to(inputs.device, torch.float32)
        changed = changed + self.difference.weight(layer).float() * self.difference.scale
        changed = changed.transpose(0, 1) if self.on_input else changed
        lengths: torch.Tensor = torch.linalg.vector_norm(changed.flatten(1), dim=1) + _EPSILON
        return (self.magnitude.to(inputs.device, torch.float32) / lengths - 1) * weight


def _dora_change(dora: Dora, layer: Layer, weight: float) -> Change:
    """The change at one scale; factors are made at the first call, since they need the layer's weight."""
    made: list[torch.Tensor] = []
    difference = dora.difference

    def change(inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        difference.move_to(inputs)
        if not made:
            made.append(dora.factors(layer, weight, inputs).to(inputs.dtype))
        factors, own = by_channel(layer, made[0]), values_of(layer).to(inputs)
        if dora.on_input:
            added = difference.product(layer, inputs + inputs * factors) * difference.scale
            output = output + added + apply_layer(layer, inputs * factors, own)
        else:
            added = difference.product(layer, inputs) * difference.scale
            output = output + added + (added + apply_layer(layer, inputs, own)) * factors
        return output if difference.bias is None else output + by_channel(layer, difference.bias) * weight

    return change
