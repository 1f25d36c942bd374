"""A LoRA file's tensors under the names of the model's layers, whatever trainer wrote them; none is dropped.

A name that is exactly one layer of the model needs no converter. The rest goes through diffusers' converters, one
naming scheme at a time: given several at once (0.42), they convert the first and drop the others without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)

from contracts.weights.adapters.lora_layouts import scheme_of, usual_name
from worker.adapters.layer_weight import Layer
from worker.checkpoints.tracking import mark, names_of, numbers_read, some_of, unmarked

Tensors = dict[str, torch.Tensor]
#: Component -> layer's name -> layer.
Layers = Mapping[str, Mapping[str, Layer]]

_PART = re.compile(
    r"^(?P<name>.+?)\.(?P<kind>lora_(A|B|down|up)\.weight|lora\.(down|up)\.weight|lora_B\.bias|alpha|"
    r"lora_magnitude_vector(\.weight)?)$"
)
_KINDS = {
    "lora_A.weight": "A.weight", "lora_down.weight": "A.weight", "lora.down.weight": "A.weight",
    "lora_B.weight": "B.weight", "lora_up.weight": "B.weight", "lora.up.weight": "B.weight",
    "lora_B.bias": "B.bias", "lora_magnitude_vector": "magnitude", "lora_magnitude_vector.weight": "magnitude",
    "alpha": "alpha",
}  # fmt: skip
_FLAT = re.compile(r"^lora_(?P<part>unet|transformer|te|te1|te2|te3)_(?P<layer>.+)$")
_ENCODERS = {"te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2", "te3": "text_encoder_3"}

_WEIGHT = re.compile(r"^(?P<layer>.+)\.lora_(?P<half>A|B)\.(?P<kind>weight|bias)$")
_ALPHA = re.compile(r"^(?P<layer>.+?)(\.lora_A\.weight)?\.alpha$")
_MAGNITUDE = re.compile(r"^(?P<layer>.+)\.lora_magnitude_vector(\.weight)?$")


@dataclass
class LayerTensors:
    """The tensors that a file has for one layer.

    Attributes:
        tensors: by `A.weight`, `B.weight`, `A.bias`, `B.bias` or `magnitude`.
        alpha: kohya's, as stored beside the weights.
    """

    tensors: Tensors = field(default_factory=dict)
    alpha: float | None = None

    def put(self, name: str, kind: str, tensor: torch.Tensor) -> None:
        """Add one tensor; raises ValueError where the file has it twice."""
        if kind in self.tensors or (kind == "alpha" and self.alpha is not None):
            raise ValueError(f"the file has two sets of weights for {name[:120]}")
        if kind == "alpha":
            self.alpha = float(tensor)
        else:
            self.tensors[kind] = tensor


#: Component -> layer's name -> its tensors.
Found = dict[str, dict[str, LayerTensors]]


def layers_of(component: torch.nn.Module) -> dict[str, Layer]:
    """Return the layers that a LoRA can change, by name."""
    return {
        layer_name(name): layer
        for name, layer in component.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    }


def layer_name(name: str) -> str:
    """Strip the extra module level that older transformers' CLIP text encoders have."""
    return name.removeprefix("text_model.")


def find_layers(base: Any, denoiser: str, tensors: Tensors, layers: Layers) -> Found:
    """Sort a file's tensors by the layers that they belong to.

    Args:
        base: the pipeline whose class has diffusers' converters.
        denoiser: the component that names without one belong to.

    Raises:
        ValueError: a tensor belongs to no layer of the model, or to one that has another already.
        Exception: whatever diffusers' converters raise.
    """
    found: Found = {}
    rest: dict[str, Tensors] = {}
    exact = _ExactNames(layers, denoiser)
    renamed = _under_usual_names(tensors)
    for key, tensor in renamed.items():
        place = exact.place(key)
        if place is None:
            rest.setdefault(scheme_of(key, renamed), {})[key] = tensor
        else:
            component, layer, kind = place
            found.setdefault(component, {}).setdefault(layer, LayerTensors()).put(key, kind, tensor)
    for group in rest.values():
        for component, layer, kind, tensor in _converted(base, denoiser, group, layers):
            found.setdefault(component, {}).setdefault(layer, LayerTensors()).put(
                f"{component}.{layer}", kind, tensor
            )
    # An alpha without weights scales nothing.
    return {
        name: {layer: stored for layer, stored in own.items() if stored.tensors} for name, own in found.items()
    }


def _under_usual_names(tensors: Tensors) -> Tensors:
    renamed: Tensors = {}
    for key, tensor in tensors.items():
        if renamed.setdefault(usual_name(key), tensor) is not tensor:
            raise ValueError(f"the file has two sets of weights for {key[:120]}")
    return renamed


class _ExactNames:
    """Names that are a layer's own: with dots, or with kohya's underscores where only one layer has them."""

    def __init__(self, layers: Layers, denoiser: str) -> None:
        self._layers, self._denoiser = layers, denoiser
        self._flat: dict[str, dict[str, str | None]] = {}
        for component, own in layers.items():
            flat = self._flat.setdefault(component, {})
            for name in own:
                key = name.replace(".", "_")
                flat[key] = None if key in flat else name

    def place(self, key: str) -> tuple[str, str, str] | None:
        """Return component, layer and kind of a tensor; None where its name is another."""
        match = _PART.match(key)
        if match is None:
            return None
        name, kind = match["name"], _KINDS[match["kind"]]
        if flat := _FLAT.match(name):
            component = _ENCODERS.get(flat["part"], self._denoiser)
            layer = self._flat.get(component, {}).get(flat["layer"].removeprefix("text_model_"))
            return None if layer is None else (component, layer, kind)
        component, _, rest = name.partition(".")
        if layer_name(rest) in self._layers.get(component, {}):
            return component, layer_name(rest), kind
        bare = name.removeprefix("base_model.model.").removeprefix("diffusion_model.")
        return (self._denoiser, bare, kind) if bare in self._layers[self._denoiser] else None


def _converted(
    base: Any, denoiser: str, tensors: Tensors, layers: Layers
) -> Iterator[tuple[str, str, str, torch.Tensor]]:
    """Component, layer, kind and tensor of each tensor that diffusers' converter makes of one naming scheme."""
    options = {"unet_config": base.unet.config} if denoiser == "unet" else {}
    with numbers_read() as read:
        result, *alphas, _ = base.lora_state_dict(
            mark(tensors), return_alphas=True, return_lora_metadata=True, **options
        )
        everything = {**result, **(alphas[0] or {} if alphas else {})}
    used = read.union(*(names_of(tensor) for tensor in everything.values()))
    left = [key for key in tensors if key not in used and not _scales_nothing(key, tensors)]
    if left:
        raise ValueError(f"no layer of the model takes {some_of(left)}")
    parts: dict[str, Tensors] = {}
    for key, tensor in everything.items():
        component, _, rest = key.partition(".")
        is_bare = component not in layers and any(key.startswith(f"{name}.") for name in layers[denoiser])
        component, rest = (denoiser, key) if is_bare else (component, rest)
        parts.setdefault(component, {})[rest] = unmarked(tensor)
    for component, own in parts.items():
        for key, tensor in _peft_names(own, component == denoiser).items():
            yield component, *_kind_of(component, key), tensor


def _scales_nothing(key: str, tensors: Tensors) -> bool:
    """Whether a tensor is an alpha of no layer, or one that equals its layer's rank."""
    name = key.removesuffix(".alpha")
    down = tensors.get(f"{name}.lora_down.weight")
    return name != key and (down is None or float(tensors[key]) == down.shape[0])


def _peft_names(tensors: Tensors, is_denoiser: bool) -> Tensors:
    """Rename tensors as diffusers does when it loads them."""
    if is_denoiser:
        converted: Tensors = convert_unet_state_dict_to_peft(tensors)
    else:
        converted = convert_state_dict_to_peft(convert_state_dict_to_diffusers(tensors))
    return converted


def _kind_of(component: str, key: str) -> tuple[str, str]:
    """The layer and the kind of a tensor under PEFT's names."""
    if match := _WEIGHT.match(key):
        return layer_name(match["layer"]), f"{match['half']}.{match['kind']}"
    if match := _MAGNITUDE.match(key):
        return layer_name(match["layer"]), "magnitude"
    if match := _ALPHA.match(key):
        return layer_name(match["layer"]), "alpha"
    raise ValueError(f"{component}.{key[:120]} is not supported; only LoRA and PEFT's DoRA are")
