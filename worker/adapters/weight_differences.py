"""Computes what LoHa, LoKr, full differences, OFT and IA3 change in one layer's output.

The formulas are lycoris-lora's (https://arxiv.org/abs/2309.14859), with the model's own weight as their base:
several adapters of a layer add up, in any order. Knows neither files, models nor images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from worker.adapters.layer_weight import Layer, shape_of, values_of
from worker.adapters.low_rank import Change

Tensors = dict[str, torch.Tensor]


def apply_layer(layer: Layer, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What the layer would give with another weight, and without its bias."""
    if isinstance(layer, torch.nn.Conv2d):
        return functional.conv2d(inputs, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return functional.linear(inputs, weight)


def by_channel(layer: Layer, values: torch.Tensor) -> torch.Tensor:
    """Shape one value a channel so that it broadcasts over the layer's output, or its input."""
    return values.view(-1, 1, 1) if isinstance(layer, torch.nn.Conv2d) else values


@dataclass
class Difference:
    """A term that is added to a layer's weight, or to its output.

    Attributes:
        tensors: its factors, in the layer's dtype.
        scale: the trainer's, usually alpha ÷ rank.
        bias: (outputs,), added to the layer's bias; not scaled by the trainer.
        workspace_values: that a call makes of the factors and forgets again.
    """

    tensors: Tensors
    scale: float = 1.0
    bias: torch.Tensor | None = None
    workspace_values: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        bias = 0 if self.bias is None else self.bias.nbytes
        return bias + sum(tensor.nbytes for tensor in self.tensors.values())

    def scaled(self, layer: Layer, weight: float) -> Change:
        """Return the change of the layer's output at a request's scale."""

        def change(inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
            self.move_to(inputs)
            if self.tensors:
                output = output + self.product(layer, inputs) * (self.scale * weight)
            return output if self.bias is None else output + by_channel(layer, self.bias) * weight

        return change

    def product(self, layer: Layer, inputs: torch.Tensor) -> torch.Tensor:
        """What it adds to the layer's output, before all scales."""
        return apply_layer(layer, inputs, self.weight(layer))

    def weight(self, layer: Layer) -> torch.Tensor:
        """What it adds to the layer's weight, before all scales; of the same shape."""
        raise NotImplementedError

    def move_to(self, inputs: torch.Tensor) -> None:
        """Move to where the layer computes: with offloading that changes between calls."""
        for name, tensor in self.tensors.items():
            if tensor.device != inputs.device or tensor.dtype != inputs.dtype:
                self.tensors[name] = tensor.to(inputs.device, inputs.dtype)
        if self.bias is not None:
            self.bias = self.bias.to(inputs.device, inputs.dtype)


class Full(Difference):
    """The difference itself: `diff`."""

    def weight(self, layer: Layer) -> torch.Tensor:
        """`diff`."""
        return self.tensors["diff"].reshape(shape_of(layer))


class LowRankProduct(Difference):
    """LoRA with what `low_rank.py` lacks: `mid` between the two (https://arxiv.org/abs/1412.6553), or DoRA."""

    def product(self, layer: Layer, inputs: torch.Tensor) -> torch.Tensor:
        """`up(mid(down(inputs)))`."""
        down, up, mid = self.tensors["down"], self.tensors["up"], self.tensors.get("mid")
        if not isinstance(layer, torch.nn.Conv2d):
            return functional.linear(functional.linear(inputs, down), up)
        if mid is None:
            return functional.conv2d(apply_layer(layer, inputs, down), up)
        return functional.conv2d(apply_layer(layer, functional.conv2d(inputs, down), mid), up)

    def weight(self, layer: Layer) -> torch.Tensor:
        """The product of the factors."""
        down, up = self.tensors["down"].flatten(1), self.tensors["up"].flatten(1)
        if "mid" in self.tensors:
            return torch.einsum("m n k l, i m, n j -> i j k l", self.tensors["mid"], up, down)
        return (up @ down).view(shape_of(layer))


class Hadamard(Difference):
    """LoHa: two products of thin matrices, multiplied value by value (https://arxiv.org/abs/2108.06098)."""

    def weight(self, layer: Layer) -> torch.Tensor:
        """Made for each call: kept, it would take as much memory as the layer."""
        product = self._half(1)
        product *= self._half(2)
        return product.view(shape_of(layer))

    def _half(self, number: int) -> torch.Tensor:
        first, second = self.tensors[f"hada_w{number}_a"], self.tensors[f"hada_w{number}_b"].flatten(1)
        core = self.tensors.get(f"hada_t{number}")
        return first @ second if core is None else _from_core(core, first, second)


@dataclass
class Kronecker(Difference):
    """LoKr: the Kronecker product of two matrices, of which it applies one after the other.

    Attributes:
        rows: of the product that are this layer's, where several layers are joined along their outputs; None: all.
    """

    rows: tuple[int, int] | None = None

    def product(self, layer: Layer, inputs: torch.Tensor) -> torch.Tensor:
        """`(w1 ⊗ w2) inputs`, without making the product."""
        first, second = self._first(), self._second(layer)
        if isinstance(layer, torch.nn.Conv2d):
            groups = inputs.reshape(inputs.shape[0] * first.shape[1], -1, *inputs.shape[2:])
            hidden = apply_layer(layer, groups, second)
            hidden = hidden.view(inputs.shape[0], first.shape[1], *hidden.shape[1:])
            result = torch.einsum("i j, n j c h w -> n i c h w", first, hidden).flatten(1, 2)
            return result if self.rows is None else result[:, slice(*self.rows)]
        hidden = functional.linear(inputs.reshape(*inputs.shape[:-1], first.shape[1], -1), second)
        result = torch.matmul(first, hidden).flatten(-2)
        return result if self.rows is None else result[..., slice(*self.rows)]

    def weight(self, layer: Layer) -> torch.Tensor:
        """The product, whole."""
        first, second = self._first(), self._second(layer)
        product = torch.kron(first.view(*first.shape, *[1] * (second.dim() - 2)), second.contiguous())
        rows = product if self.rows is None else product[slice(*self.rows)]
        return rows.reshape(shape_of(layer))

    def _first(self) -> torch.Tensor:
        if "lokr_w1" in self.tensors:
            return self.tensors["lokr_w1"]
        return self.tensors["lokr_w1_a"] @ self.tensors["lokr_w1_b"]

    def _second(self, layer: Layer) -> torch.Tensor:
        """(outputs, inputs, kernel of the layer)."""
        kernel = shape_of(layer)[2:]
        if "lokr_w2" in self.tensors:
            second = self.tensors["lokr_w2"]
        elif "lokr_t2" in self.tensors:
            second = _from_core(self.tensors["lokr_t2"], self.tensors["lokr_w2_a"], self.tensors["lokr_w2_b"])
        else:
            second = self.tensors["lokr_w2_a"] @ self.tensors["lokr_w2_b"].flatten(1)
        return second.reshape(second.shape[0], -1, *kernel)


class Rotation(Difference):
    """OFT: blocks of the weight's rows, rotated (https://arxiv.org/abs/2306.07280).

    Its tensors are `turns`, the rotations (blocks, rows, rows) minus the identity, and perhaps `rescale`.
    """

    def product(self, layer: Layer, inputs: torch.Tensor) -> torch.Tensor:
        """What the rotations change of what the weight gives."""
        turns, rescale = self.tensors["turns"], self.tensors.get("rescale")
        own = apply_layer(layer, inputs, values_of(layer).to(inputs))
        axis = 1 if isinstance(layer, torch.nn.Conv2d) else -1
        last = own.movedim(axis, -1)
        blocks = last.reshape(*last.shape[:-1], *turns.shape[:2])
        turned = torch.einsum("k n m, ... k n -> ... k m", turns, blocks).flatten(-2).movedim(-1, axis)
        if rescale is None:
            return turned
        factors = by_channel(layer, rescale)
        return factors * turned + (factors - 1) * own

    @staticmethod
    def turns(blocks: torch.Tensor, constraint: float) -> torch.Tensor:
        """Cayley's rotations of `oft_blocks`, minus the identity, in float32.

        Args:
            constraint: the greatest length of all blocks' skew parts; 0: any.
        """
        skew = blocks.float() - blocks.float().transpose(1, 2)
        length = float(skew.norm()) + 1e-8
        if 0 < constraint < length:
            skew = skew * (constraint / length)
        identity = torch.eye(skew.shape[1], device=skew.device)
        return (identity + skew) @ (identity - skew).inverse() - identity


@dataclass
class ChannelScale(Difference):
    """IA3: channels of the layer multiplied (https://arxiv.org/abs/2205.05638); its tensor is `factors`, minus 1.

    Attributes:
        on_input: whether it multiplies what goes into the layer, instead of what comes out.
    """

    on_input: bool = False

    def product(self, layer: Layer, inputs: torch.Tensor) -> torch.Tensor:
        """What the factors change of what the weight gives."""
        factors, weight = by_channel(layer, self.tensors["factors"]), values_of(layer).to(inputs)
        if self.on_input:
            return apply_layer(layer, inputs * factors, weight)
        return apply_layer(layer, inputs, weight) * factors


def _from_core(core: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """A kernel of its Tucker decomposition: (ranks, kernel), (rank, outputs), (rank, inputs)."""
    return torch.einsum("i j k l, i p, j r -> p r k l", core, first, second)
