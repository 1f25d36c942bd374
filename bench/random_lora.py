"""Adapters with random values, for any denoiser: what they take to load and to switch does not depend on these."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")


def write_lora(
    denoiser: torch.nn.Module, name: str, path: Path, rank: int, seed: int, deviation: float = 0.05
) -> int:
    """Write one in PEFT's layout; returns how many layers it changes.

    Args:
        denoiser: only its layers' names and shapes are read; it may be on the meta device.
        name: the denoiser's in its pipeline, `unet` or `transformer`.
        deviation: of the values.
    """
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for key, layer in denoiser.named_modules():
        if isinstance(layer, torch.nn.Linear) and key.endswith(_TARGETS):
            down, up = (rank, layer.in_features), (layer.out_features, rank)
            tensors[f"{name}.{key}.lora_A.weight"] = torch.randn(down, generator=generator) * deviation
            tensors[f"{name}.{key}.lora_B.weight"] = torch.randn(up, generator=generator) * deviation
    save_file(tensors, path)
    return len(tensors) // 2
