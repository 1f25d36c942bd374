"""Reads an adapter's file and holds it against a model. Changes nothing.

diffusers' own loader would load half of a wrong file, widen a layer for good, or have no effect without a word;
only its converters are used, which give every trainer's layout the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)

from contracts.weights.lora_files import read_changes, read_tensors
from worker.adapters.layers import Layer, LowRank
from worker.families import FamilyCode

Tensors = dict[str, torch.Tensor]
#: Component -> layer -> its change.
Changes = Mapping[str, Mapping[Layer, LowRank]]

_WEIGHT = re.compile(r"^(?P<layer>.+)\.lora_(?P<half>A|B)\.(?P<kind>weight|bias)$")
_ALPHA = re.compile(r"^(?P<layer>.+?)(\.lora_A\.weight)?\.alpha$")
_MAGNITUDE = re.compile(r"^(?P<layer>.+)\.lora_magnitude_vector(\.weight)?$")


@dataclass
class _Parts:
    """What a file says of one layer."""

    tensors: Tensors = field(default_factory=dict)
    alpha: float | None = None


def read(base: Any, family: FamilyCode, path: Path) -> Changes:
    """The changes that the file makes to the model that `base` carries, on its device and in its dtype.

    Raises:
        AdapterRefused: it is no adapter, or of a kind that is not supported.
        ValueError: it does not fit this model, or would have no effect.
    """
    read_changes(read_tensors(path))  # says more clearly what is wrong with a file that is no adapter at all
    components = targets(base)
    changes: dict[str, dict[Layer, LowRank]] = {}
    tensors, settings = _read_tensors(base, family, path)
    for name, own in _by_component(tensors).items():
        if name not in components:
            raise ValueError(f"{name[:80]!r} is no part of {family.id} that an adapter can change")
        layers = _layers_of(components[name])
        changes[name] = {}
        for key, parts in _by_layer(_peft_names(own, name == family.denoiser), name).items():
            if key not in layers:
                raise ValueError(f"the model has no layer {name}.{key[:120]}")
            scale = _Scale(settings, name).of(key, parts)
            changes[name][layers[key]] = _change(f"{name}.{key}", layers[key], parts, scale)
    if not any(changes.values()):
        raise ValueError("it holds no LoRA weights")
    return changes


def targets(base: Any) -> dict[str, torch.nn.Module]:
    """The components that adapters can change."""
    parts = {name: getattr(base, name, None) for name in base._lora_loadable_modules}
    return {name: part for name, part in parts.items() if part is not None}


def _read_tensors(base: Any, family: FamilyCode, path: Path) -> tuple[Tensors, Mapping[str, Any]]:
    """The file's tensors and scales under diffusers' names, whatever trainer wrote it, and peft's settings."""
    options = {"unet_config": base.unet.config} if family.denoiser == "unet" else {}
    found = base.lora_state_dict(
        str(path.parent),
        weight_name=path.name,
        use_safetensors=True,
        return_alphas=True,
        return_lora_metadata=True,
        **options,
    )
    tensors, *alphas, settings = found
    return {**tensors, **(alphas[0] or {} if alphas else {})}, settings or {}


def _by_component(tensors: Tensors) -> dict[str, Tensors]:
    parts: dict[str, Tensors] = {}
    for key, tensor in tensors.items():
        if not torch.isfinite(torch.as_tensor(tensor)).all():
            raise ValueError(f"{key[:120]} holds values that are no numbers")
        component, _, rest = key.partition(".")
        parts.setdefault(component, {})[rest] = tensor
    return parts


def _peft_names(tensors: Tensors, is_denoiser: bool) -> Tensors:
    """The names that diffusers gives them when it loads them."""
    if is_denoiser:
        converted: Tensors = convert_unet_state_dict_to_peft(tensors)
    else:
        converted = convert_state_dict_to_peft(convert_state_dict_to_diffusers(tensors))
    return converted


def _by_layer(tensors: Tensors, component: str) -> dict[str, _Parts]:
    found: dict[str, _Parts] = {}
    for key, tensor in tensors.items():
        if match := _WEIGHT.match(key):
            found.setdefault(_plain(match), _Parts()).tensors[f"{match['half']}.{match['kind']}"] = tensor
        elif match := _MAGNITUDE.match(key):
            found.setdefault(_plain(match), _Parts()).tensors["magnitude"] = tensor
        elif match := _ALPHA.match(key):
            found.setdefault(_plain(match), _Parts()).alpha = float(tensor)
        else:
            raise ValueError(f"{component}.{key[:120]} is of a kind that is not supported")
    # A scale of a layer that the file does not change means nothing.
    return {layer: parts for layer, parts in found.items() if parts.tensors}


def _plain(match: re.Match[str]) -> str:
    """The layer's name; older text encoders have one more level."""
    return match["layer"].removeprefix("text_model.")


def _change(name: str, layer: Layer, parts: _Parts, alpha: float) -> LowRank:
    down, up = parts.tensors.get("A.weight"), parts.tensors.get("B.weight")
    if down is None or up is None or "A.bias" in parts.tensors:
        raise ValueError(f"{name[:120]} is of a kind that is not supported")
    for tensor, axis in ((down, 1), (up, 0)):
        if tensor.dim() != layer.weight.dim():
            raise ValueError(f"{name[:120]} has {tensor.dim()} axes, not {layer.weight.dim()}")
        if tensor.shape[axis] != layer.weight.shape[axis]:
            raise ValueError(f"{name} is made for {tensor.shape[axis]} channels, not {layer.weight.shape[axis]}")
    if down.shape[0] != up.shape[1] or down.shape[2:] != layer.weight.shape[2:] or set(up.shape[2:]) - {1}:
        raise ValueError(f"the two halves of {name[:120]} do not fit together")
    bias, magnitude = parts.tensors.get("B.bias"), parts.tensors.get("magnitude")
    for values in (bias, magnitude):
        if values is not None and values.numel() != layer.weight.shape[0]:
            raise ValueError(f"{name[:120]} has {values.numel()} values a channel, not {layer.weight.shape[0]}")
    return LowRank(
        _own(down, layer), _own(up, layer), alpha,
        bias=None if bias is None else _own(bias, layer),
        magnitude=None if magnitude is None else _own(magnitude, layer),
    )  # fmt: skip


def _own(tensor: torch.Tensor, layer: Layer) -> torch.Tensor:
    """A copy where the layer is: the file's own bytes are mapped, and would change with it."""
    dtype = layer.weight.dtype if layer.weight.dtype.itemsize > 1 else torch.float32
    return tensor.detach().to(layer.weight.device, dtype, copy=True).contiguous()


class _Scale:
    """The trainer's scale of a layer's change: alpha ÷ rank, from beside the weights or from peft's settings."""

    def __init__(self, settings: Mapping[str, Any], component: str) -> None:
        start = f"{component}."
        self._settings = {
            key.removeprefix(start): value for key, value in settings.items() if key.startswith(start)
        }

    def of(self, layer: str, parts: _Parts) -> float:
        """1 where nothing is said."""
        rank = parts.tensors["A.weight"].shape[0] if "A.weight" in parts.tensors else 1
        alpha = self._settings.get("lora_alpha") if parts.alpha is None else parts.alpha
        for pattern, value in (self._settings.get("alpha_pattern") or {}).items():
            if parts.alpha is None and re.match(rf"(.*\.)?({pattern})$", layer):
                alpha = value
        divisor = rank**0.5 if self._settings.get("use_rslora") else rank
        return 1.0 if alpha is None else float(alpha) / divisor


def _layers_of(component: torch.nn.Module) -> dict[str, Layer]:
    """Layers that an adapter may change, by their names without the level that older text encoders have."""
    return {
        name.removeprefix("text_model."): layer
        for name, layer in component.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    }
