"""Writes small weights: LoRA files in the layouts that trainers write, ControlNets that surely have an effect.

And counts those that are alive.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import save_file

_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
_DENOISERS = {
    "sdxl": ("unet", diffusers.UNet2DConditionModel),
    "sd3": ("transformer", diffusers.SD3Transformer2DModel),
    "flux": ("transformer", diffusers.FluxTransformer2DModel),
}
_KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}


def write_adapter(
    path: Path,
    family: str,
    checkpoint: Path,
    rank: int = 4,
    seed: int = 0,
    text_encoder: bool = False,
    kohya_alpha: float | None = None,
) -> dict[str, torch.Tensor]:
    """Write an adapter for a checkpoint; returns its tensors in the PEFT layout.

    Args:
        path: the file.
        family: of the checkpoint.
        checkpoint: folder in diffusers layout.
        rank: of every layer.
        seed: of the weights.
        text_encoder: whether it changes the first text encoder, too.
        kohya_alpha: write kohya's layout with this alpha, instead of PEFT's.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for part in (_DENOISERS[family][0], *(["text_encoder"] if text_encoder else [])):
        tensors |= _random(_sizes_of(family, checkpoint, part), part, rank, generator)
    written = tensors if kohya_alpha is None else to_kohya(tensors, kohya_alpha)
    save_file(written, path)
    return tensors


def targets_of(family: str, checkpoint: Path) -> list[tuple[str, torch.nn.Linear]]:
    """The attention layers of a checkpoint's denoiser, by name."""
    name, denoiser = _DENOISERS[family]
    layers = denoiser.from_pretrained(checkpoint / name).named_modules()
    return [
        (name, layer) for name, layer in layers if isinstance(layer, torch.nn.Linear) and name.endswith(_TARGETS)
    ]


def random_adapter(model: Any, prefix: str, rank: int, seed: int) -> dict[str, torch.Tensor]:
    """An adapter for the attention layers of a model, in the PEFT layout."""
    return _random(_sizes(model), prefix, rank, torch.Generator().manual_seed(seed))


@cache
def _sizes_of(family: str, checkpoint: Path, part: str) -> tuple[tuple[str, int, int], ...]:
    """`_sizes` of a part of a checkpoint, which no test changes where it lies."""
    kind: Any = _DENOISERS[family][1]
    if part == "text_encoder":
        config = json.loads((checkpoint / part / "config.json").read_text())
        kind = getattr(transformers, config["architectures"][0])
    return _sizes(kind.from_pretrained(checkpoint / part))


def _sizes(model: Any) -> tuple[tuple[str, int, int], ...]:
    """Name, inputs and outputs of each attention layer."""
    return tuple(
        (name, layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.endswith(_TARGETS)
    )


def _random(
    sizes: Iterable[tuple[str, int, int]], prefix: str, rank: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, inputs, outputs in sizes:
        tensors[f"{prefix}.{name}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * 0.2
        tensors[f"{prefix}.{name}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.2
    return tensors


def to_kohya(tensors: dict[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """The same adapter as kohya's trainer and AUTOMATIC1111 name its parts."""
    renamed = {}
    for key, tensor in tensors.items():
        component, rest = key.split(".", 1)
        module, half = rest.rsplit(".lora_", 1)
        if component.startswith("text_encoder") and not module.startswith("text_model."):
            module = f"text_model.{module}"
        name = f"{_KOHYA[component]}_{module.replace('.', '_')}"
        renamed[f"{name}.{'lora_down' if half.startswith('A') else 'lora_up'}.weight"] = tensor
        renamed[f"{name}.alpha"] = torch.tensor(alpha)
    return renamed


def write_controlnet(folder: Path, family: str, source: Path) -> None:
    """Write a ControlNet like the one in `source`, with random weights where an untrained one has zeros."""
    torch.manual_seed(7)
    controlnet = _CONTROLNETS[family].from_pretrained(source)
    for name, layer in controlnet.named_modules():
        if name.startswith(_ZERO_LAYERS[family]) and isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=0.1)
    controlnet.save_pretrained(folder)


def write_mask_controlnet(folder: Path, checkpoint: Path) -> None:
    """Write an SD3 ControlNet of the kind that takes the job's image and mask: one more input channel."""
    torch.manual_seed(7)
    transformer = diffusers.SD3Transformer2DModel.from_pretrained(checkpoint / "transformer")
    controlnet = diffusers.SD3ControlNetModel.from_transformer(
        transformer, num_layers=1, num_extra_conditioning_channels=1
    )
    for layer in (*controlnet.controlnet_blocks, controlnet.pos_embed_input.proj):
        torch.nn.init.normal_(layer.weight, std=0.1)
    controlnet.save_pretrained(folder)


_CONTROLNETS = {
    "sdxl": diffusers.ControlNetModel,
    "sd3": diffusers.SD3ControlNetModel,
    "flux": diffusers.FluxControlNetModel,
}
_ZERO_LAYERS = {
    "sdxl": ("controlnet_down_blocks", "controlnet_mid_block", "controlnet_cond_embedding.conv_out"),
    "sd3": ("controlnet_blocks", "pos_embed_input"),
    "flux": ("controlnet_blocks", "controlnet_single_blocks", "controlnet_x_embedder"),
}


def count_parameters() -> int:
    """Values of all parameters that are alive in this process, each counted once."""
    gc.collect()
    return sum(thing.numel() for thing in gc.get_objects() if type(thing) is torch.nn.Parameter)
