"""Reads a LoRA file and checks it against a loaded model, layer by layer. Changes nothing.

Names are those of `layouts.py`. diffusers' loader (`load_lora_weights`, 0.42) would load half of a wrong file,
widen a layer for good, or have no effect without an error; `tests/worker/adapters/test_hazards.py` shows each case
refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from contracts.weights.adapters.lora_files import read_lora
from contracts.weights.adapters.lora_settings import ScaleSettings
from contracts.weights.adapters.lycoris_layouts import group
from worker.adapters.hypernetworks import read_networks
from worker.adapters.layer_weight import Layer, dtype_of, shape_of
from worker.adapters.layouts import LayerTensors, Tensors, find_layers, layers_of
from worker.adapters.low_rank import LayerChange, LowRank, check_layer
from worker.adapters.lycoris_reader import read_differences
from worker.families import DiffusersFamily

#: Component -> layer -> what is changed in it.
LoraWeights = Mapping[str, Mapping[Layer, LayerChange]]


def read(base: Any, family: DiffusersFamily, path: Path) -> LoraWeights:
    """Return the weights that the file adds to the components of `base`, on their device and in their dtype.

    Raises:
        AdapterRefused: the file is not a LoRA, or of a kind that is not supported.
        ValueError: it does not fit this model, or would have no effect.
    """
    file = read_lora(path)  # has the clearer messages for files that are not LoRAs at all
    if file.hypernetwork is not None:
        return {family.denoiser: read_networks(getattr(base, family.denoiser), path, file.hypernetwork)}
    layers = {name: layers_of(part) for name, part in adaptable_components(base).items()}
    weights: dict[str, dict[Layer, LayerChange]] = {}
    tensors = _read_tensors(path, file.tensors)
    grouped = {key for parts in group(tensors).values() for key in parts.values()}
    plain = {key: tensor for key, tensor in tensors.items() if key not in grouped}
    for name, own in find_layers(base, family.denoiser, plain, layers).items():
        if name not in layers:
            raise ValueError(f"LoRAs cannot change {name[:80]!r} in {family.id} models")
        weights[name] = {}
        for key, stored in own.items():
            if key not in layers[name]:
                raise ValueError(f"the model has no layer {name}.{key[:120]}")
            layer = layers[name][key]
            scale = _trained_scale(file.settings.get(name, ScaleSettings()), key, stored)
            weights[name][layer] = _low_rank(f"{name}.{key}", layer, stored, scale)
    for name, key, change in read_differences(file, tensors, layers, family.denoiser, _copy_to):
        if weights.setdefault(name, {}).setdefault(layers[name][key], change) is not change:
            raise ValueError(f"the file has two sets of weights for {name}.{key[:120]}")
    if not any(weights.values()):
        raise ValueError("the file holds no LoRA weights")
    return weights


def adaptable_components(base: Any) -> dict[str, torch.nn.Module]:
    """Return the components of a pipeline that LoRAs can change, by their names."""
    components = {name: getattr(base, name, None) for name in getattr(base, "_lora_loadable_modules", ())}
    return {name: component for name, component in components.items() if component is not None}


def _read_tensors(path: Path, used: Mapping[str, object]) -> Tensors:
    """Read the tensors that act; 8-bit floats, with which nothing can be computed, as float32.

    diffusers is given the tensors, not the file: it would take the patterns in a file's metadata as expressions.
    """
    tensors = {}
    for key, tensor in load_file(path).items():
        if key not in used:
            continue
        is_narrow = tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1
        tensors[key] = tensor.to(torch.float32) if is_narrow else tensor
        if not torch.isfinite(tensors[key]).all():
            raise ValueError(f"{key[:120]} contains NaN or infinite values")
    return tensors


def _low_rank(name: str, layer: Layer, stored: LayerTensors, alpha: float) -> LowRank:
    down, up = stored.tensors.get("A.weight"), stored.tensors.get("B.weight")
    if down is None or up is None or "A.bias" in stored.tensors:
        raise ValueError(f"{name[:120]} must have both LoRA weights, and no bias of the first")
    check_layer(name, layer)
    down, up = (_shaped_as(layer, half) for half in (down, up))
    shape = shape_of(layer)
    for tensor, axis in ((down, 1), (up, 0)):
        if tensor.dim() != len(shape):
            raise ValueError(f"{name[:120]} has {tensor.dim()} dimensions, the model's layer {len(shape)}")
        if tensor.shape[axis] != shape[axis]:
            trained, actual = tensor.shape[axis], shape[axis]
            raise ValueError(f"{name[:120]} is made for {trained} channels, the model's layer has {actual}")
    if down.shape[0] != up.shape[1] or down.shape[2:] != shape[2:] or set(up.shape[2:]) - {1}:
        raise ValueError(f"the two LoRA weights of {name[:120]} do not fit together")
    bias, magnitude = stored.tensors.get("B.bias"), stored.tensors.get("magnitude")
    for values in (bias, magnitude):
        if values is not None and values.numel() != shape[0]:
            raise ValueError(f"{name[:120]} has {values.numel()} values for {shape[0]} channels")
    return LowRank(
        _copy_to(layer, down), _copy_to(layer, up), alpha,
        bias=None if bias is None else _copy_to(layer, bias),
        magnitude=None if magnitude is None else _copy_to(layer, magnitude),
    ).folded()  # fmt: skip


def _shaped_as(layer: Layer, half: torch.Tensor) -> torch.Tensor:
    """One half with as many dimensions as its layer's weight: a 1 × 1 convolution is a matrix, and the reverse."""
    if isinstance(layer, torch.nn.Linear) and half.dim() == 4 and half.shape[2:] == (1, 1):
        return half[:, :, 0, 0]
    if isinstance(layer, torch.nn.Conv2d) and half.dim() == 2 and shape_of(layer)[2:] == (1, 1):
        return half[:, :, None, None]
    return half


def _copy_to(layer: Layer, tensor: torch.Tensor) -> torch.Tensor:
    """Copy to the layer's device: the tensor maps the file's bytes and would change with the file."""
    return tensor.detach().to(layer.weight.device, dtype_of(layer), copy=True).contiguous()


def _trained_scale(settings: ScaleSettings, layer: str, stored: LayerTensors) -> float:
    """Return the trainer's scale, alpha ÷ rank, with alpha beside the weights or in the settings, else 1."""
    rank = stored.tensors["A.weight"].shape[0] if "A.weight" in stored.tensors else 1
    return settings.scale_of(layer, rank, stored.alpha)
