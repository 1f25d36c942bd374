"""Disturbs layers of the denoiser for some rows of a call, for guidance away from what it makes then.

Of a UNet's self-attention only the values are left (perturbed-attention guidance, as diffusers' `LayerSkipConfig`
with `skip_attention_scores` has it); a transformer's block is left out (skip-layer guidance, as the `skip_layers`
of diffusers' `SD3Transformer2DModel`). Knows nothing of guidance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Perturbation:
    """The layers that are disturbed, and how.

    Attributes:
        name: equal for perturbations with the same effect on one model.
        blocks: transformer blocks.
        leaves_out: whether they are left out; else their self-attention gives its values only.
    """

    name: str
    blocks: tuple[torch.nn.Module, ...]
    leaves_out: bool


#: The rows of a call, in order: the perturbation of each range, and how many rows it has.
Parts = Sequence[tuple[Perturbation | None, int]]


@contextmanager
def disturbed(parts: Parts) -> Iterator[int]:
    """Inside, disturb these rows of every call; yields how many layers are hooked."""
    total, start = sum(rows for _, rows in parts), 0
    by_block: dict[torch.nn.Module, list[slice]] = {}
    leaving_out: dict[torch.nn.Module, bool] = {}
    for perturbation, rows in parts:
        for block in () if perturbation is None else perturbation.blocks:
            by_block.setdefault(block, []).append(slice(start, start + rows))
            leaving_out[block] = perturbation is not None and perturbation.leaves_out
        start += rows
    with ExitStack() as hooks:
        for block, slices in by_block.items():
            for handle in _hook(block, slices, total, leaves_out=leaving_out[block]):
                hooks.callback(handle.remove)
        yield len(by_block)


def _hook(
    block: Any, rows: Sequence[slice], total: int, *, leaves_out: bool
) -> Iterator[torch.utils.hooks.RemovableHandle]:
    if leaves_out:
        hook = _LeaveOut(rows, total)
        yield block.register_forward_hook(hook, with_kwargs=True)
    else:
        values = _ValuesOnly(rows, total)
        # LoRAs' hooks on the same layers are called before these, whenever they are registered.
        yield block.attn1.to_v.register_forward_hook(values.keep)
        yield block.attn1.to_out[0].register_forward_pre_hook(values.replace, prepend=True)


class _LeaveOut:
    """Forward hook of a transformer block: some rows leave it as they came."""

    def __init__(self, rows: Sequence[slice], total: int) -> None:
        self._rows, self._total = rows, total

    def __call__(self, block: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> Any:
        del block
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        encoder = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[1]
        _check_rows(hidden, self._total)
        encoder_result, hidden_result = result
        # The last block gives nothing for the prompt, which nothing reads.
        pairs = [(encoder_result, encoder), (hidden_result, hidden)]
        for made, given in pairs:
            for rows in self._rows if made is not None else ():
                made[rows] = given[rows]
        return encoder_result, hidden_result


class _ValuesOnly:
    """The hooks of one self-attention layer: of some rows, its values stand for what it attends to."""

    def __init__(self, rows: Sequence[slice], total: int) -> None:
        self._rows, self._total = rows, total
        self._values: torch.Tensor | None = None

    def keep(self, layer: Any, inputs: Any, output: torch.Tensor) -> None:
        """Forward hook of `to_v`."""
        del layer, inputs
        self._values = output

    def replace(self, layer: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Pre-hook of `to_out`."""
        del layer
        values, self._values = self._values, None
        if values is None:
            raise RuntimeError("a self-attention layer gave no values")
        _check_rows(inputs[0], self._total)
        hidden = inputs[0].clone()
        for rows in self._rows:
            hidden[rows] = values[rows]
        return (hidden, *inputs[1:])


def _check_rows(tensor: torch.Tensor, total: int) -> None:
    if len(tensor) != total:
        raise RuntimeError(f"a layer was given {len(tensor)} rows in a call of {total}")
