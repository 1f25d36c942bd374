"""Reads a LoRA file and checks it against a loaded model, layer by layer. Changes nothing.

Only diffusers' converters are used, which give every trainer's layout the same names. Its loader
(`load_lora_weights`, 0.42) would load half of a wrong file, widen a layer for good, or have no effect without an
error; `tests/worker/adapters/test_hazards.py` shows each case refused here.
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
from safetensors.torch import load_file

from contracts.weights.lora_files import read_lora
from contracts.weights.lora_settings import ScaleSettings
from worker.adapters.low_rank import Layer, LowRank
from worker.families import DiffusersFamily

Tensors = dict[str, torch.Tensor]
#: Component -> layer -> its LoRA weights.
LoraWeights = Mapping[str, Mapping[Layer, LowRank]]

_WEIGHT = re.compile(r"^(?P<layer>.+)\.lora_(?P<half>A|B)\.(?P<kind>weight|bias)$")
_ALPHA = re.compile(r"^(?P<layer>.+?)(\.lora_A\.weight)?\.alpha$")
_MAGNITUDE = re.compile(r"^(?P<layer>.+)\.lora_magnitude_vector(\.weight)?$")


@dataclass
class _LayerTensors:
    """The tensors that a file has for one layer.

    Attributes:
        tensors: by `A.weight`, `B.weight`, `A.bias`, `B.bias` or `magnitude`.
        alpha: kohya's, as stored beside the weights.
    """

    tensors: Tensors = field(default_factory=dict)
    alpha: float | None = None


def read(base: Any, family: DiffusersFamily, path: Path) -> LoraWeights:
    """Return the weights that the file adds to the components of `base`, on their device and in their dtype.

    Raises:
        AdapterRefused: the file is not a LoRA, or of a kind that is not supported.
        ValueError: it does not fit this model, or would have no effect.
    """
    settings = read_lora(path).settings  # has the clearer messages for files that are not LoRAs at all
    components = adaptable_components(base)
    weights: dict[str, dict[Layer, LowRank]] = {}
    for name, own in _by_component(_read_tensors(base, family, path)).items():
        if name not in components:
            raise ValueError(f"LoRAs cannot change {name[:80]!r} in {family.id} models")
        layers = _layers_of(components[name])
        weights[name] = {}
        for key, stored in _by_layer(_peft_names(own, name == family.denoiser), name).items():
            if key not in layers:
                raise ValueError(f"the model has no layer {name}.{key[:120]}")
            scale = _trained_scale(settings.get(name, ScaleSettings()), key, stored)
            weights[name][layers[key]] = _low_rank(f"{name}.{key}", layers[key], stored, scale)
    if not any(weights.values()):
        raise ValueError("the file holds no LoRA weights")
    return weights


def adaptable_components(base: Any) -> dict[str, torch.nn.Module]:
    """Return the components of a pipeline that LoRAs can change, by their names."""
    components = {name: getattr(base, name, None) for name in base._lora_loadable_modules}
    return {name: component for name, component in components.items() if component is not None}


def _read_tensors(base: Any, family: DiffusersFamily, path: Path) -> Tensors:
    """Read tensors and alphas under diffusers' names, whatever trainer wrote them.

    diffusers is given the tensors, not the file: it would take the patterns in a file's metadata as expressions.
    """
    options = {"unet_config": base.unet.config} if family.denoiser == "unet" else {}
    tensors, *alphas, _ = base.lora_state_dict(
        load_file(path), return_alphas=True, return_lora_metadata=True, **options
    )
    return {**tensors, **(alphas[0] or {} if alphas else {})}


def _by_component(tensors: Tensors) -> dict[str, Tensors]:
    components: dict[str, Tensors] = {}
    for key, tensor in tensors.items():
        if not torch.isfinite(torch.as_tensor(tensor)).all():
            raise ValueError(f"{key[:120]} contains NaN or infinite values")
        component, _, rest = key.partition(".")
        components.setdefault(component, {})[rest] = tensor
    return components


def _peft_names(tensors: Tensors, is_denoiser: bool) -> Tensors:
    """Rename tensors as diffusers does when it loads them."""
    if is_denoiser:
        converted: Tensors = convert_unet_state_dict_to_peft(tensors)
    else:
        converted = convert_state_dict_to_peft(convert_state_dict_to_diffusers(tensors))
    return converted


def _by_layer(tensors: Tensors, component: str) -> dict[str, _LayerTensors]:
    layers: dict[str, _LayerTensors] = {}
    for key, tensor in tensors.items():
        if match := _WEIGHT.match(key):
            name = f"{match['half']}.{match['kind']}"
            layers.setdefault(_layer_name(match["layer"]), _LayerTensors()).tensors[name] = tensor
        elif match := _MAGNITUDE.match(key):
            layers.setdefault(_layer_name(match["layer"]), _LayerTensors()).tensors["magnitude"] = tensor
        elif match := _ALPHA.match(key):
            layers.setdefault(_layer_name(match["layer"]), _LayerTensors()).alpha = float(tensor)
        else:
            raise ValueError(f"{component}.{key[:120]} is not supported; supported are LoRA and peft's DoRA")
    # An alpha without weights scales nothing.
    return {layer: stored for layer, stored in layers.items() if stored.tensors}


def _layers_of(component: torch.nn.Module) -> dict[str, Layer]:
    """Return the layers that a LoRA can change, by name."""
    return {
        _layer_name(name): layer
        for name, layer in component.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    }


def _layer_name(name: str) -> str:
    """Strip the extra module level that older transformers' CLIP text encoders have."""
    return name.removeprefix("text_model.")


def _low_rank(name: str, layer: Layer, stored: _LayerTensors, alpha: float) -> LowRank:
    down, up = stored.tensors.get("A.weight"), stored.tensors.get("B.weight")
    if down is None or up is None or "A.bias" in stored.tensors:
        raise ValueError(f"{name[:120]} must have both LoRA weights, and no bias of the first")
    for tensor, axis in ((down, 1), (up, 0)):
        if tensor.dim() != layer.weight.dim():
            raise ValueError(f"{name[:120]} has {tensor.dim()} dimensions, the model's layer {layer.weight.dim()}")
        if tensor.shape[axis] != layer.weight.shape[axis]:
            trained, actual = tensor.shape[axis], layer.weight.shape[axis]
            raise ValueError(f"{name[:120]} is made for {trained} channels, the model's layer has {actual}")
    if down.shape[0] != up.shape[1] or down.shape[2:] != layer.weight.shape[2:] or set(up.shape[2:]) - {1}:
        raise ValueError(f"the two LoRA weights of {name[:120]} do not fit together")
    bias, magnitude = stored.tensors.get("B.bias"), stored.tensors.get("magnitude")
    for values in (bias, magnitude):
        if values is not None and values.numel() != layer.weight.shape[0]:
            raise ValueError(f"{name[:120]} has {values.numel()} values for {layer.weight.shape[0]} channels")
    return LowRank(
        _copy_to(layer, down), _copy_to(layer, up), alpha,
        bias=None if bias is None else _copy_to(layer, bias),
        magnitude=None if magnitude is None else _copy_to(layer, magnitude),
    ).folded()  # fmt: skip


def _copy_to(layer: Layer, tensor: torch.Tensor) -> torch.Tensor:
    """Copy to the layer's device: the tensor maps the file's bytes and would change with the file."""
    dtype = layer.weight.dtype if layer.weight.dtype.itemsize > 1 else torch.float32
    return tensor.detach().to(layer.weight.device, dtype, copy=True).contiguous()


def _trained_scale(settings: ScaleSettings, layer: str, stored: _LayerTensors) -> float:
    """Return the trainer's scale, alpha ÷ rank, with alpha beside the weights or in the settings, else 1."""
    rank = stored.tensors["A.weight"].shape[0] if "A.weight" in stored.tensors else 1
    alpha = settings.alpha_of(layer) if stored.alpha is None else stored.alpha
    divisor = rank**0.5 if settings.by_root else rank
    return 1.0 if alpha is None else alpha / divisor
