"""Computes what a LoRA adds to one layer: the product of two thin matrices, scaled (https://arxiv.org/abs/2106.09685).

Arithmetic and order of operations are peft's (`peft.tuners.lora.layer`), so an image has the same bytes as with
diffusers' own loader; a multiplication is saved only where that changes no bit. Knows neither files, models nor
images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch.nn import functional

from worker.adapters.layer_weight import Layer, values_of

#: (layer input, layer output) -> changed output.
Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def check_layer(name: str, layer: Layer) -> None:
    """Refuse a layer that adapters cannot change, of this name in their file; raises ValueError."""
    if isinstance(layer, torch.nn.Conv2d) and layer.groups > 1:
        raise ValueError(f"{name[:120]} is a convolution of groups, which cannot be changed")


@dataclass(frozen=True)
class InputChange:
    """A change of a layer's input, made before the layer and all changes of its output.

    Attributes:
        change: layer input -> changed input.
    """

    change: Callable[[torch.Tensor], torch.Tensor]


class LayerChange(Protocol):
    """An adapter's change of one layer."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""

    @property
    def workspace_values(self) -> int:
        """Values that a call makes and forgets again."""

    def scaled(self, layer: Layer, weight: float) -> Change | InputChange:
        """Return the change of the layer's output, or input, at a request's scale."""


@dataclass
class LowRank:
    """LoRA weights of one layer.

    Attributes:
        down: (rank, inputs), or a convolution kernel with `rank` output channels.
        up: (outputs, rank), or a 1 × 1 convolution kernel with `rank` input channels.
        alpha: the trainer's scale of `up @ down`, usually alpha ÷ rank; 1 once it is in `up` (`folded`).
        bias: (outputs,), added after `up`; few trainers write one.
        magnitude: (outputs,), DoRA's length of each row of the changed weight; None for a plain LoRA.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    bias: torch.Tensor | None = None
    magnitude: torch.Tensor | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        tensors = (self.down, self.up, self.bias, self.magnitude)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    @property
    def workspace_values(self) -> int:
        """None but what every layer's output is."""
        return 0

    def folded(self) -> LowRank:
        """The same LoRA with alpha in `up` and `bias`, where no bit of a result changes; else this one.

        That holds for powers of two, which most files have, as long as no value leaves the dtype's normal numbers.
        float16 has too few of these to be sure of every product.
        """
        is_power_of_two = abs(math.frexp(self.alpha)[0]) == 0.5
        if self.alpha == 1 or not is_power_of_two or self.up.dtype == torch.float16:
            return self
        up = self.up * self.alpha
        bias = None if self.bias is None else self.bias * self.alpha
        for scaled, own in ((up, self.up), (bias, self.bias)):
            if scaled is not None and own is not None and not torch.equal(scaled / self.alpha, own):
                return self
        return replace(self, up=up, bias=bias, alpha=1.0)

    def scaled(self, layer: Layer, weight: float) -> Change:
        """Return the change of the layer's output at a request's LoRA scale."""
        scale = weight * self.alpha
        if self.magnitude is None and scale == 1:
            return lambda inputs, output: output + self.transform(layer, inputs)
        if self.magnitude is None:
            return lambda inputs, output: output + self.transform(layer, inputs) * scale
        return _Dora(self, self.magnitude, layer, scale)

    def transform(self, layer: Layer, inputs: torch.Tensor) -> torch.Tensor:
        """Compute `up(down(inputs))` on the device and in the dtype of `inputs`."""
        self._move_to(inputs)
        if isinstance(layer, torch.nn.Conv2d):
            hidden = functional.conv2d(inputs, self.down, None, layer.stride, layer.padding, layer.dilation)
            return functional.conv2d(hidden, self.up, self.bias)
        return functional.linear(functional.linear(inputs, self.down), self.up, self.bias)

    def _move_to(self, inputs: torch.Tensor) -> None:
        """Move to where the layer computes: with offloading that changes between calls."""
        if self.down.device != inputs.device or self.down.dtype != inputs.dtype:
            self.down = self.down.to(inputs.device, inputs.dtype)
            self.up = self.up.to(inputs.device, inputs.dtype)
            self.bias = None if self.bias is None else self.bias.to(inputs.device, inputs.dtype)


class _Dora:
    """Change of a DoRA layer, whose weight rows are rescaled (https://arxiv.org/abs/2402.09353).

    Made for each activation, because the factor depends on the scale.
    """

    def __init__(self, lora: LowRank, magnitude: torch.Tensor, layer: Layer, scale: float) -> None:
        self._lora, self._magnitude, self._layer, self._scale = lora, magnitude, layer, scale
        self._row_factors: torch.Tensor | None = None

    def __call__(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        added = self._lora.transform(self._layer, inputs) * self._scale
        if self._row_factors is None:
            self._row_factors = self._compute_row_factors(inputs)
        factors, without_bias = self._broadcast(self._row_factors), output
        if self._layer.bias is not None:
            without_bias = output - self._broadcast(self._layer.bias.to(output))
        return output + (factors - 1) * without_bias + factors * added

    def _compute_row_factors(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute magnitude ÷ actual length for each row of the changed weight."""
        weight = values_of(self._layer).to(inputs)
        product = self._lora.up.flatten(1) @ self._lora.down.flatten(1)
        lengths: torch.Tensor = torch.linalg.vector_norm(weight.flatten(1) + self._scale * product, dim=1)
        return self._magnitude.to(inputs).flatten() / lengths

    def _broadcast(self, values: torch.Tensor) -> torch.Tensor:
        """Shape one value per output channel so that it broadcasts over the layer's output."""
        return values.view(-1, 1, 1) if isinstance(self._layer, torch.nn.Conv2d) else values
