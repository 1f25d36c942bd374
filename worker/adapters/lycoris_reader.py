"""Reads the layers of LoHa, LoKr, full differences, OFT, IA3 and kohya's DoRA from a file's tensors.

Names are followed to the model's layers as the API follows them at an upload (`contracts/weights/adapters/`),
without diffusers' converters, which know few of these kinds. Changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch

from contracts.weights.adapters.lora_files import LoraFile
from contracts.weights.adapters.lora_layouts import DENOISER, LoraLayer, flat_name
from contracts.weights.adapters.lora_models import misfit
from contracts.weights.adapters.lora_settings import ScaleSettings
from contracts.weights.adapters.lycoris_layouts import WeightChange, group
from contracts.weights.adapters.original_names import layers_named
from worker.adapters.dora import Dora
from worker.adapters.layer_weight import Layer, shape_of
from worker.adapters.layouts import Layers, Tensors
from worker.adapters.low_rank import LayerChange, check_layer
from worker.adapters.weight_differences import (
    ChannelScale,
    Difference,
    Full,
    Hadamard,
    Kronecker,
    LowRankProduct,
    Rotation,
)

#: Copies a tensor to where, and as, the layer's weight is.
Copy = Callable[[torch.Tensor], torch.Tensor]


def read_differences(
    file: LoraFile,
    tensors: Tensors,
    layers: Layers,
    denoiser: str,
    copy_to: Callable[[Layer, torch.Tensor], torch.Tensor],
) -> Iterator[tuple[str, str, LayerChange]]:
    """Yield component, layer's name and what the file changes in it, for layers that diffusers does not convert.

    Args:
        tensors: of the file, by their names there.
        denoiser: the component that a file's denoiser is.
        copy_to: copies a tensor to the device and dtype of a layer.

    Raises:
        ValueError: the model has no such layer, or one of another shape.
    """
    groups = group(file.tensors)
    names = {component: _by_flat_name(own) for component, own in layers.items()}
    for layer in (one for one in file.layers if not one.is_converted):
        component = denoiser if layer.part == DENOISER else layer.part
        if component not in layers:
            raise ValueError(f"LoRAs cannot change {component[:80]!r} in this model")
        found = _find(layer, names[component], layers[component])
        if found is None:
            raise ValueError(f"the model has no layer {layer.name[:120]}")
        modules = [layers[component][name] for name in found]
        for module in modules:
            check_layer(layer.name, module)
        if reason := next(misfit(layer, [shape_of(module) for module in modules], "the model"), None):
            raise ValueError(reason)
        parts = {part: tensors[key] for part, key in groups[layer.name].items()}
        start = 0
        for name, module in zip(found, modules, strict=True):
            rows = None if len(modules) == 1 else (start, start + shape_of(module)[0])
            start += shape_of(module)[0]
            scale = _scale(layer.change, parts, file.settings.get(component, ScaleSettings()), name)
            yield component, name, _change(layer.change, parts, scale, module, rows, partial(copy_to, module))


def _by_flat_name(layers: Mapping[str, Layer]) -> dict[str, str]:
    """Flat name -> the layer's name, where only one layer has it."""
    flat = Counter(map(flat_name, layers))
    return {flat_name(name): name for name in layers if flat[flat_name(name)] == 1}


def _find(layer: LoraLayer, names: Mapping[str, str], layers: Mapping[str, Layer]) -> list[str] | None:
    """The model's layers that one of a file stands for, in the order in which it joins them."""
    if layer.layer in names:
        return [names[layer.layer]]
    shapes = {flat: shape_of(layers[name]) for flat, name in names.items()}
    found = layers_named(layer.layer, shapes)
    return None if not found or any(name not in names for name in found) else [names[name] for name in found]


def _scale(change: WeightChange, parts: Tensors, settings: ScaleSettings, name: str) -> float:
    """The trainer's scale: alpha ÷ rank where the change has factors, else 1."""
    if change.rank is None or change.kind == "oft":
        return 1.0
    return settings.scale_of(name, change.rank, float(parts["alpha"]) if "alpha" in parts else None)


def _change(
    change: WeightChange, parts: Tensors, scale: float, layer: Layer, rows: tuple[int, int] | None, copy: Copy
) -> LayerChange:
    """What is changed in one layer.

    Args:
        rows: of the tensors' outputs that are this layer's; None: all.
    """
    own = slice(*rows) if rows is not None else slice(None)
    difference = _difference(change, parts, layer, rows, copy)
    difference.scale, difference.workspace_values = scale, change.workspace_values
    if "diff_b" in parts:
        difference.bias = copy(parts["diff_b"].flatten()[own])
    if "dora_scale" not in parts:
        return difference
    lengths = parts["dora_scale"].flatten()
    return Dora(difference, copy(lengths if change.lengths_on_input else lengths[own]), change.lengths_on_input)


def _difference(
    change: WeightChange, parts: Tensors, layer: Layer, rows: tuple[int, int] | None, copy: Copy
) -> Difference:
    own = slice(*rows) if rows is not None else slice(None)
    if change.kind == "lora":
        return LowRankProduct(_low_rank(parts, layer, own, copy))
    if change.kind == "oft":
        turns = Rotation.turns(parts["oft_blocks"].to(layer.weight.device), _constraint(parts))
        first, last = (None, None) if rows is None else (row // change.block_rows for row in rows)
        kept = {"turns": copy(turns[first:last])}
        return Rotation(kept | ({"rescale": copy(parts["rescale"].flatten()[own])} if "rescale" in parts else {}))
    if change.kind == "ia3":
        on_input, factors = change.outputs is None, parts["weight"].flatten()
        return ChannelScale({"factors": copy(factors if on_input else factors[own])}, on_input=on_input)
    stored = {part: tensor for part, tensor in parts.items() if part not in ("alpha", "dora_scale", "diff_b")}
    if change.kind == "lokr":
        return Kronecker({part: copy(tensor) for part, tensor in stored.items()}, rows=rows)
    if change.kind == "full":
        return Full({part: copy(tensor[own]) for part, tensor in stored.items()})
    return Hadamard({part: copy(_hadamard_rows(part, stored, own)) for part in stored})


def _hadamard_rows(part: str, parts: Tensors, own: slice) -> torch.Tensor:
    """A tensor of LoHa, of those outputs only; beside a core, outputs are the second axis."""
    if not part.endswith("_a"):
        return parts[part]
    return parts[part][:, own] if "hada_t1" in parts else parts[part][own]


def _low_rank(parts: Tensors, layer: Layer, own: slice, copy: Copy) -> Tensors:
    """The factors of LoRA as matrices for a linear layer, and as kernels for a convolution."""
    if "down" not in parts:
        return {}
    down, up = parts["down"].flatten(1), parts["up"].flatten(1)[own]
    if not isinstance(layer, torch.nn.Conv2d):
        return {"down": copy(down), "up": copy(up)}
    kernel: Sequence[int] = (1, 1) if "mid" in parts else shape_of(layer)[2:]
    mid = {"mid": copy(parts["mid"])} if "mid" in parts else {}
    return {"down": copy(down.reshape(len(down), -1, *kernel)), "up": copy(up[..., None, None]), **mid}


def _constraint(parts: Tensors) -> float:
    """The greatest length of an OFT's rotations: its alpha for each output; 0: any."""
    blocks = parts["oft_blocks"]
    return float(parts.get("alpha", torch.zeros(()))) * blocks.shape[0] * blocks.shape[1]
