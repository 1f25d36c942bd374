"""One layer's LoRA: peft's bits, with the fewest operations that give them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from worker.adapters.layer_weight import Layer
from worker.adapters.low_rank import LowRank
from worker.adapters.row_hooks import LoraHook

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: The trainer's alpha ÷ rank, a request's weight, and whether a multiplication is left.
SCALES = [
    (1.0, 1.0, False),
    (0.5, 1.0, False),
    (0.03125, 1.0, False),
    (0.5, 0.8, True),
    (0.7, 1.0, True),
    (1.0, 0.8, True),
]


class CountingOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that compute; a view of a tensor is none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not any(value.alias_info for value in func._schema.returns):
            self.counts[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


def _layer(dtype: torch.dtype, *, convolves: bool = False) -> Layer:
    torch.manual_seed(1)
    layer: Layer = torch.nn.Conv2d(24, 40, 3, padding=1) if convolves else torch.nn.Linear(24, 40)
    return layer.to(dtype).requires_grad_(False)


def _lora(layer: Layer, alpha: float, *, bias: bool = False) -> LowRank:
    inputs, outputs = tuple(layer.weight.shape[1:]), layer.weight.shape[0]
    ones = (1,) * (layer.weight.dim() - 2)
    torch.manual_seed(2)
    dtype = layer.weight.dtype
    return LowRank(
        torch.randn(8, *inputs).to(dtype) * 0.1, torch.randn(outputs, 8, *ones).to(dtype) * 0.01, alpha,
        bias=torch.randn(outputs).to(dtype) * 0.01 if bias else None,
    )  # fmt: skip


def _inputs(layer: Layer) -> torch.Tensor:
    shape = (2, 24, 6, 6) if isinstance(layer, torch.nn.Conv2d) else (2, 7, 24)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(layer.weight.dtype)


def _in_pefts_order(layer: Layer, lora: LowRank, inputs: torch.Tensor, weight: float) -> torch.Tensor:
    output: torch.Tensor = layer(inputs)
    return output + lora.transform(layer, inputs) * (weight * lora.alpha)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("convolves", [False, True])
@pytest.mark.parametrize(("alpha", "weight", "multiplies"), SCALES)
def test_a_scale_in_the_weights_changes_no_bit_of_pefts_result(
    dtype: torch.dtype, convolves: bool, alpha: float, weight: float, multiplies: bool
) -> None:
    del multiplies
    layer = _layer(dtype, convolves=convolves)
    for bias in (False, True):
        lora, inputs = _lora(layer, alpha, bias=bias), _inputs(layer)
        expected = _in_pefts_order(layer, lora, inputs, weight)
        assert torch.equal(lora.folded().scaled(layer, weight)(inputs, layer(inputs)), expected)


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("convolves", [False, True])
@pytest.mark.parametrize(("alpha", "weight", "multiplies"), SCALES)
def test_a_step_takes_two_products_and_a_sum_and_multiplies_only_where_bits_would_change(
    dtype: torch.dtype, convolves: bool, alpha: float, weight: float, multiplies: bool
) -> None:
    layer = _layer(dtype, convolves=convolves)
    hook = LoraHook([(_lora(layer, alpha).folded().scaled(layer, weight), None)])
    inputs, product = _inputs(layer), "convolution" if convolves else "linear"
    output = layer(inputs)
    with torch.inference_mode(), CountingOperations() as operations:
        hook(layer, (inputs,), output)
    counts = {
        name.removesuffix("_overrideable").replace("conv2d", "convolution"): count
        for name, count in operations.counts.items()
    }
    assert counts == {product: 2, "add": 1, **({"mul": 1} if multiplies else {})}


def test_a_scale_stays_apart_where_it_would_change_a_weight() -> None:
    """Below float32's normal numbers a halved value loses its last bit; float16's are lost in products, too."""
    layer = _layer(torch.float32)
    lora = _lora(layer, 0.5)
    lora.up[0, 0] = 2.0**-149
    assert lora.folded().alpha == 0.5
    lora.up[0, 0] = 2.0**-100
    assert lora.folded().alpha == 1
    assert _lora(_layer(torch.float16), 0.5).folded().alpha == 0.5
