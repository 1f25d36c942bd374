"""The layouts of LoRA files: the naming schemes of their keys, and which layer each key belongs to.

The one table of them, for the API and the worker. Reads names and shapes only; knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from contracts.errors import AdapterRefused
from contracts.weights.adapters import lycoris_layouts
from contracts.weights.adapters.lycoris_layouts import LYCORIS, WeightChange
from contracts.weights.formats.safetensors import Tensor

#: The family's UNet or transformer, for keys that do not say which.
DENOISER = "denoiser"
PARTS = {
    "unet": DENOISER, "transformer": DENOISER, "te": "text_encoder", "te1": "text_encoder",
    "te2": "text_encoder_2", "te3": "text_encoder_3",
}  # fmt: skip
#: Tensors beside the two matrices of a layer: kohya's alpha, DoRA's magnitudes, the second matrix's bias.
_COMPANION = re.compile(r"\.(alpha|lora_magnitude_vector(\.weight)?|lora_B\.bias)$")
_LAYOUTS: Sequence[tuple[str, re.Pattern[str]]] = (
    ("peft", re.compile(r"^(?P<layer>.+)\.lora_(?P<half>A|B)\.weight$")),
    ("kohya", re.compile(r"^(?P<layer>lora_.+)\.lora_(?P<half>down|up)\.weight$")),
    ("xlabs", re.compile(r"^(?P<layer>.+_lora\d)\.(?P<half>down|up)\.weight$")),
    ("diffusers", re.compile(r"^(?P<layer>.+)[._]lora(_linear_layer)?\.(?P<half>down|up)\.weight$")),
    ("comfyui", re.compile(r"^(?P<layer>.+)\.lora_(?P<half>down|up)\.weight$")),
)
#: What ComfyUI and PEFT write before the name of a denoiser's layer.
_WRAPPERS = re.compile(r"^(base_model\.model\.|diffusion_model\.)+")
_COMPONENT = re.compile(r"^(unet|transformer|text_encoder(_[23])?)\.(?P<layer>.+)$")
_KOHYA = re.compile(rf"^(lora_(?P<part>unet|transformer|te[123]?)_|{LYCORIS})(?P<layer>.+)$")
#: Maximum number of different ranks, which are shown and stored with each upload.
_MAX_RANKS = 1024
#: Layers as the original FLUX release names them, under the wrappers that trainers write before them.
_ORIGINAL_FLUX = re.compile(
    r"^((base_model\.model|diffusion_model|transformer|unet)\.)*(?P<layer>(double|single)_blocks\.\d+\..+)$"
)
#: A norm that a FLUX Control LoRA replaces, and the layer that it widens, by both releases' names.
_CONTROL_NORM = re.compile(r"\.((query|key)_norm\.scale|norm_(added_)?[qk]\.weight)$")
_CONTROL_INPUT = re.compile(r"(^|\.)(img_in|x_embedder)\.lora_A\.weight$")
#: What is said of one.
_CONTROL_LORA = (
    "it is a FLUX Control LoRA, which gives the transformer further channels for a control image and replaces its "
    "norms for all requests: name the file as control_lora in the row of a FLUX.1 model in the catalogue, or use "
    "a whole checkpoint such as black-forest-labs/FLUX.1-Canny-dev, and send control_image to that model"
)
_XLABS_ALPHA = re.compile(r"_lora\d\.alpha$")
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


@dataclass(frozen=True)
class LoraLayer:
    """One layer that a file changes.

    Attributes:
        part: `denoiser`, `text_encoder`, …
        layer: its name with underscores for dots.
        layout: naming scheme of the key.
        is_own_name: whether the key uses the layer's name in the model.
        is_converted: whether diffusers' converters give it its name in the model.
        change: what its tensors do to the layer's weight.
    """

    name: str
    part: str
    layer: str
    layout: str
    is_own_name: bool
    is_converted: bool
    change: WeightChange
    of_control: ClassVar[str] = _CONTROL_LORA

    def widens_for_control(self, inputs: int) -> bool:
        """Whether it gives the model's first layer, which has so many inputs, as many more for a control image."""
        return self.layer == "x_embedder" and self.change.inputs == 2 * inputs


def usual_name(key: str) -> str:
    """Return a tensor's name as diffusers' converters know it: with ComfyUI's wrapper, or with none as XLabs' are.

    They would drop layers of the original FLUX release under another wrapper, or with PEFT's names of the halves.
    """
    match = _ORIGINAL_FLUX.match(key)
    if match is None:
        return key
    layer = (
        match["layer"].replace(".lora_A.weight", ".lora_down.weight").replace(".lora_B.weight", ".lora_up.weight")
    )
    return layer if ".processor." in layer else f"diffusion_model.{layer}"


def scheme_of(key: str, keys: Collection[str]) -> str:
    """Return the naming scheme of a tensor, for what goes with a layer's matrices that of the matrices."""
    companion = _COMPANION.search(key)
    if companion is None:
        return _match(key)[0]
    name = key[: companion.start()]
    halves = (f"{name}.lora_A.weight", f"{name}.lora_down.weight", f"{name}.lora.down.weight")
    return next((_match(half)[0] for half in halves if half in keys), "kohya")


def read_layers(tensors: Mapping[str, Tensor], on_input: Collection[str] = ()) -> list[LoraLayer]:
    """The layers that the file changes, each with what it does to the weight.

    Args:
        on_input: keys of `on_input` that are not zero, for IA3.

    Raises:
        AdapterRefused: a tensor is not part of a LoRA or one of its relatives, or a layer's tensors are not whole.
    """
    refuse_control_lora(tensors)
    groups = lycoris_layouts.group(tensors)
    grouped = {key for parts in groups.values() for key in parts.values()}
    for key, tensor in tensors.items():
        is_number = key.endswith((".alpha", ".on_input"))
        if tensor.dtype not in FLOATS and not is_number and (key in grouped or _is_half(key)):
            raise AdapterRefused(
                f"{key[:120]} must be floating-point numbers, got {tensor.dtype}: without its scales"
            )
    layers = _plain_layers({key: tensor for key, tensor in tensors.items() if key not in grouped}, groups)
    for name, parts in groups.items():
        own = {part: tensors[key] for part, key in parts.items()}
        change = lycoris_layouts.read_change(name, own, parts.get("on_input") in on_input)
        layers.append(_layer(name, _layout_of(name), change, is_converted=False))
    if not layers:
        raise AdapterRefused("the file contains no LoRA weights")
    places = [(layer.part, layer.layer) for layer in layers]
    if len({*places}) < len(places):
        twice = next(layer for layer in layers if places.count((layer.part, layer.layer)) > 1)
        raise AdapterRefused(f"the file has two sets of weights for {twice.name[:120]}")
    if len({layer.change.rank for layer in layers}) > _MAX_RANKS:
        raise AdapterRefused(f"its layers have more than {_MAX_RANKS} different ranks")
    return layers


def refuse_control_lora(names: Collection[str]) -> None:
    """Refuse a file whose tensors have the names of a FLUX Control LoRA's; raises AdapterRefused."""
    norm = next(filter(_CONTROL_NORM.search, names), None)
    if norm is not None and any(map(_CONTROL_INPUT.search, names)):
        raise AdapterRefused(f"{_CONTROL_LORA} ({norm[:120]})")


def _is_half(key: str) -> bool:
    return any(pattern.match(usual_name(key)) for _, pattern in _LAYOUTS)


def _layout_of(name: str) -> str:
    if name.startswith(LYCORIS):
        return "lycoris"
    return "kohya" if _KOHYA.match(name) else "comfyui"


def _plain_layers(tensors: Mapping[str, Tensor], groups: Collection[str]) -> list[LoraLayer]:
    """The layers of a LoRA and of PEFT's DoRA."""
    halves: dict[str, dict[str, Tensor]] = {}
    layouts: dict[str, str] = {}
    magnitudes: set[str] = set()
    for given, tensor in tensors.items():
        key = usual_name(given)
        if unsupported := lycoris_layouts.unsupported_kind(key):
            raise AdapterRefused(
                f"{key[:120]!r} belongs to a kind of adapter that is not supported: {unsupported}"
            )
        if companion := _COMPANION.search(key):
            if given[: companion.start() - len(key)] in groups:
                raise AdapterRefused(f"{given[:120]} does not fit the kind of this layer")
            if companion[1] == "alpha" and tensor.values != 1:
                raise AdapterRefused(f"{key[:120]} must be one value, got the shape {list(tensor.shape)}")
            if _XLABS_ALPHA.search(key):
                raise AdapterRefused(f"{key[:120]} belongs to no layer: LoRAs in XLabs' layout have no alpha")
            magnitudes |= {key[: companion.start()]} if companion[1].startswith("lora_magnitude") else set()
            continue
        layout, match = _match(key)
        half = "down" if match["half"] in ("A", "down") else "up"
        pair = halves.setdefault(match["layer"], {})
        if half in pair:
            raise AdapterRefused(f"the file has two sets of weights for {match['layer'][:120]}")
        pair[half] = tensor
        layouts[match["layer"]] = layout
    return [
        _layer(name, layouts[name], _change(name, pair, is_dora=name in magnitudes), is_converted=True)
        for name, pair in halves.items()
    ]


def _match(key: str) -> tuple[str, re.Match[str]]:
    for layout, pattern in _LAYOUTS:
        if match := pattern.match(key):
            return layout, match
    raise AdapterRefused(f"{key[:120]!r} is not part of a LoRA")


def _change(name: str, pair: Mapping[str, Tensor], *, is_dora: bool) -> WeightChange:
    if pair.keys() != {"down", "up"}:
        raise AdapterRefused(f"one of the two matrices of {name[:120]} is missing")
    down, up = pair["down"].shape, pair["up"].shape
    if len(down) < 2 or len(up) != len(down) or down[0] != up[1]:
        raise AdapterRefused(f"the two matrices of {name[:120]} do not match: shapes {list(down)} and {list(up)}")
    if down[0] == 0:
        raise AdapterRefused(f"the two matrices of {name[:120]} have rank 0")
    return WeightChange("lora", down[0], up[0], down[1], down[2:], prod(down[1:]), is_dora)


def _layer(name: str, layout: str, change: WeightChange, *, is_converted: bool) -> LoraLayer:
    part, layer = place_of(name)
    own = layout == "peft" or (layout == "comfyui" and _COMPONENT.match(name) is not None)
    return LoraLayer(name, part, layer, layout, own, is_converted, change)


def place_of(name: str) -> tuple[str, str]:
    """Part and flat name of the layer that a name of a file stands for."""
    if match := _KOHYA.match(name):
        return PARTS[match["part"] or "transformer"], flat_name(match["layer"])
    if match := _COMPONENT.match(name):
        return PARTS.get(match[1], match[1]), flat_name(match["layer"])
    return DENOISER, flat_name(_WRAPPERS.sub("", name))


def flat_name(layer: str) -> str:
    """A layer's name as kohya writes it; diffusers' old names of attention layers lack the last index."""
    layer = re.sub(r"(^|\.)processor\.", r"\1", layer).removeprefix("text_model.").replace(".", "_")
    layer = layer.removeprefix("text_model_")
    return f"{layer}_0" if layer.endswith("_to_out") else layer
