"""Holds an adapter's file against a model before anything is loaded. Changes nothing.

diffusers would load half of a wrong file, widen a layer for good, or have no effect without a word.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)

from worker.families import FamilyCode

Tensors = dict[str, torch.Tensor]

_WEIGHT = re.compile(r"^(?P<layer>.+)\.lora_(?P<half>A|B)\.weight$")
#: What may stand beside the two halves: DoRA's magnitudes and a trained bias.
_COMPANION = re.compile(r"\.lora_magnitude_vector(\.weight)?$|\.lora_B\.bias$|\.alpha$")


def check(base: Any, family: FamilyCode, path: Path) -> None:
    """Hold the file against the model that `base` carries.

    Raises:
        ValueError: it would fail half-way, have no effect, or change the model for good.
    """
    hits = 0
    parts = targets(base)
    for name, tensors in _by_component(_read(base, family, path)).items():
        if name not in parts:
            raise ValueError(f"{name[:80]!r} is no part of {family.id} that an adapter can change")
        layers = _layers(parts[name])
        for key, tensor in _peft_names(tensors, name == family.denoiser).items():
            hits += _check_tensor(layers, f"{name}.{key}", key, tensor)
    if not hits:
        raise ValueError("it holds no LoRA weights")


def targets(base: Any) -> dict[str, torch.nn.Module]:
    """The components that adapters can change."""
    parts = {name: getattr(base, name, None) for name in base._lora_loadable_modules}
    return {name: part for name, part in parts.items() if part is not None}


def _read(base: Any, family: FamilyCode, path: Path) -> Tensors:
    """The file's tensors under diffusers' names, whatever trainer wrote it."""
    options = {"unet_config": base.unet.config} if family.denoiser == "unet" else {}
    found = base.lora_state_dict(str(path.parent), weight_name=path.name, use_safetensors=True, **options)
    tensors: Tensors = found[0] if isinstance(found, tuple) else found
    return tensors


def _by_component(tensors: Tensors) -> dict[str, Tensors]:
    parts: dict[str, Tensors] = {}
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{key[:120]} holds values that are no numbers")
        component, _, rest = key.partition(".")
        parts.setdefault(component, {})[rest] = tensor
    return parts


def _peft_names(tensors: Tensors, is_denoiser: bool) -> Tensors:
    """The names that diffusers will give them when it loads them."""
    if is_denoiser:
        converted: Tensors = convert_unet_state_dict_to_peft(tensors)
    else:
        converted = convert_state_dict_to_peft(convert_state_dict_to_diffusers(tensors))
    return converted


def _check_tensor(layers: dict[str, Any], name: str, key: str, tensor: torch.Tensor) -> int:
    match = _WEIGHT.match(key)
    if match is None:
        if _COMPANION.search(key):
            return 0
        raise ValueError(f"{name[:120]} is of a kind that is not supported")
    layer = layers.get(match["layer"].removeprefix("text_model."))
    if layer is None:
        raise ValueError(f"the model has no layer {name[:120]}")
    axis = 1 if match["half"] == "A" else 0
    if tensor.shape[axis] != layer.weight.shape[axis]:
        raise ValueError(f"{name} is made for {tensor.shape[axis]} channels, not {layer.weight.shape[axis]}")
    return 1


def _layers(module: torch.nn.Module) -> dict[str, Any]:
    """Layers that an adapter may change, under the names that they have without any."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return {
        name.replace(".base_layer", "").removeprefix("text_model."): layer
        for name, layer in module.named_modules()
        if isinstance(layer, kinds) and ".lora_" not in name
    }
