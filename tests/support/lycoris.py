"""Writes an adapter with all relatives of LoRA in turn: LoHa, LoKr, whole differences, OFT, IA3, kohya's DoRA."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.support.weights import targets_of

Tensors = dict[str, torch.Tensor]


def write_lycoris(path: Path, family: str, checkpoint: Path, seed: int = 4) -> None:
    """Write a file whose kinds take turns over the attention layers of a family's denoiser."""
    generator = torch.Generator().manual_seed(seed)
    tensors: Tensors = {}
    for number, (name, layer) in enumerate(targets_of(family, checkpoint)):
        kind = _KINDS[number % len(_KINDS)]
        own = kind(layer.weight.detach(), generator)
        tensors |= {f"lora_unet_{name.replace('.', '_')}.{part}": tensor for part, tensor in own.items()}
    save_file(tensors, path)


def _random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator) * 0.2


def _loha(weight: torch.Tensor, generator: torch.Generator) -> Tensors:
    outputs, inputs = weight.shape
    halves = {"a": (outputs, 4), "b": (4, inputs)}
    return {f"hada_w{n}_{half}": _random(generator, *shape) for n in (1, 2) for half, shape in halves.items()}


def _lokr(weight: torch.Tensor, generator: torch.Generator) -> Tensors:
    outputs, inputs = weight.shape
    return {"lokr_w1": _random(generator, 8, 8), "lokr_w2": _random(generator, outputs // 8, inputs // 8)}


def _full(weight: torch.Tensor, generator: torch.Generator) -> Tensors:
    return {"diff": _random(generator, *weight.shape) * 0.2, "diff_b": _random(generator, len(weight))}


def _oft(weight: torch.Tensor, generator: torch.Generator) -> Tensors:
    return {"oft_blocks": _random(generator, len(weight) // 8, 8, 8), "alpha": torch.tensor(0.1)}


def _ia3(weight: torch.Tensor, generator: torch.Generator) -> Tensors:
    return {"weight": _random(generator, weight.shape[1]), "on_input": torch.tensor(1)}


def _dora(weight: torch.Tensor, generator: torch.Generator) -> Tensors:
    outputs, inputs = weight.shape
    factors = {"lora_down.weight": _random(generator, 4, inputs), "lora_up.weight": _random(generator, outputs, 4)}
    return {**factors, "dora_scale": weight.norm(dim=1, keepdim=True) * 1.2}


_KINDS: tuple[Callable[[torch.Tensor, torch.Generator], Tensors], ...] = (_loha, _lokr, _full, _oft, _ia3, _dora)
