"""What an adapter adds to one layer: two thin matrices whose product is a change of the layer's weight.

The arithmetic, and the order of its operations, is peft's (`LoraLayer.forward`), so an image is bit for bit what
diffusers' own loader would give. Knows neither files nor models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

Layer = torch.nn.Linear | torch.nn.Conv2d


@dataclass
class LowRank:
    """The change of one layer.

    Attributes:
        down: rank × inputs, or a convolution's kernels with `rank` outputs.
        up: outputs × rank, or a convolution's kernels with `rank` inputs.
        alpha: the trainer's scale of `up @ down`, usually alpha ÷ rank.
        bias: of `up`; few trainers have one.
        magnitude: DoRA's length of each row of the changed weight; None for a plain LoRA.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    bias: torch.Tensor | None = None
    magnitude: torch.Tensor | None = None

    @property
    def size_bytes(self) -> int:
        """Of all tensors."""
        parts = (self.down, self.up, self.bias, self.magnitude)
        return sum(part.nbytes for part in parts if part is not None)

    def scaled(self, layer: Layer, weight: float) -> Added:
        """What to add to the layer's result, at a request's weight."""
        scale = weight * self.alpha
        if self.magnitude is None:
            return lambda inputs, result: result + self.transform(layer, inputs) * scale
        return _Stretched(self, self.magnitude, layer, scale)

    def transform(self, layer: Layer, inputs: torch.Tensor) -> torch.Tensor:
        """`up(down(inputs))`, on the inputs' device and in their dtype."""
        self._follow(inputs)
        if isinstance(layer, torch.nn.Conv2d):
            thin = functional.conv2d(inputs, self.down, None, layer.stride, layer.padding, layer.dilation)
            return functional.conv2d(thin, self.up, self.bias)
        return functional.linear(functional.linear(inputs, self.down), self.up, self.bias)

    def _follow(self, inputs: torch.Tensor) -> None:
        """Move to where the layer computes: a plan may bring a layer in for a moment, or stream it."""
        if self.down.device != inputs.device or self.down.dtype != inputs.dtype:
            self.down = self.down.to(inputs.device, inputs.dtype)
            self.up = self.up.to(inputs.device, inputs.dtype)
            self.bias = None if self.bias is None else self.bias.to(inputs.device, inputs.dtype)


#: (inputs, result so far) -> result.
Added = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class _Stretched:
    """DoRA: the rows of the changed weight have lengths of their own. One for each activation."""

    def __init__(self, change: LowRank, magnitude: torch.Tensor, layer: Layer, scale: float) -> None:
        self._change, self._magnitude, self._layer, self._scale = change, magnitude, layer, scale
        self._stretch: torch.Tensor | None = None

    def __call__(self, inputs: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
        added = self._change.transform(self._layer, inputs) * self._scale
        if self._stretch is None:
            self._stretch = self._measure(inputs)
        stretch, plain = self._spread(self._stretch), result
        if self._layer.bias is not None:
            plain = result - self._spread(self._layer.bias.to(result))
        return result + (stretch - 1) * plain + stretch * added

    def _measure(self, inputs: torch.Tensor) -> torch.Tensor:
        """Wanted length ÷ length, of each row of the changed weight."""
        weight = self._layer.weight.to(inputs)
        product = self._change.up.flatten(1) @ self._change.down.flatten(1)
        lengths: torch.Tensor = torch.linalg.vector_norm(weight.flatten(1) + self._scale * product, dim=1)
        return self._magnitude.to(inputs).flatten() / lengths

    def _spread(self, values: torch.Tensor) -> torch.Tensor:
        """One value for each output channel, in a shape that fits the layer's result."""
        return values.view(-1, 1, 1) if isinstance(self._layer, torch.nn.Conv2d) else values


class ImageRows:
    """Some images of a call, found again in whatever a layer is given."""

    def __init__(self, images: Sequence[int], of: int) -> None:
        """`images` are numbers of some of the `of` images of the call."""
        self._images = images
        self._of = of
        self._found: dict[tuple[int, torch.device], torch.Tensor] = {}

    def change(self, add: Added, inputs: torch.Tensor, result: torch.Tensor) -> None:
        """Have `add` change these images' rows of a layer's result, in place.

        Raises:
            RuntimeError: the rows are no whole number of passes over the images.
        """
        rows = self._rows(result.shape[0], result.device)
        changed = add(inputs.index_select(0, rows), result.index_select(0, rows))
        result.index_copy_(0, rows, changed.to(result.dtype))

    def _rows(self, count: int, device: torch.device) -> torch.Tensor:
        key = (count, device)
        if key not in self._found:
            passes, rest = divmod(count, self._of)
            if rest:
                raise RuntimeError(f"a layer was given {count} rows for {self._of} images")
            rows = [turn * self._of + image for turn in range(passes) for image in self._images]
            self._found[key] = torch.tensor(rows, device=device)
        return self._found[key]


#: What to add, and to which images; None: to all of the call.
Share = tuple[Added, ImageRows | None]


class LoraHook:
    """The hook on one layer."""

    def __init__(self, shares: Sequence[Share]) -> None:
        """`shares` act one after the other."""
        self._shares = shares

    def __call__(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor], result: torch.Tensor) -> torch.Tensor:
        """The layer's result, with everybody's share."""
        del layer
        dtype = result.dtype
        for add, rows in self._shares:
            if rows is None:
                result = add(inputs[0], result)
            else:
                rows.change(add, inputs[0], result)
        return result.to(dtype)
