"""Control-LoRAs, as Stability publishes them: a UNet's ControlNet as differences from that UNet, in one file.

A layer of the UNet's encoder is stored as the two halves of a LoRA (`.up`, `.down`), or whole where it is another
one than the UNet's; the layers that only a ControlNet has are whole. Names are those of the original release.
Layers that the file leaves out are the UNet's. Knows shapes, and no values.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

from contracts.errors import CatalogueError
from contracts.weights.adapters.lora_layouts import flat_name
from contracts.weights.adapters.original_names import layers_named
from contracts.weights.denoiser_files import Layers

#: An empty tensor by which these files are known.
_MARK = "lora_controlnet"
#: Weight of the layer that reads the control image.
FIRST_OF_HINT = "input_hint_block.0.weight"
_HALVES = ("up", "down")
#: Characters in a layer's name.
_LONGEST = 200
#: Beginnings of the names of a UNet's encoder.
ENCODER = ("conv_in.", "time_embedding.", "add_embedding.", "class_embedding.", "down_blocks.", "mid_block.")
#: Layers that only a ControlNet has, as the original release names them.
_ZERO, _MIDDLE, _HINT = (
    re.compile(pattern)
    for pattern in (r"^zero_convs\.(\d{1,3})\.0$", r"^middle_block_out\.0$", r"^input_hint_block\.(\d{1,3})$")
)
#: Parts of a UNet's block after which a ControlNet gives a result.
_RESULTS = re.compile(r"^down_blocks\.\d+\.(resnets|downsamplers)\.\d+(?=\.)")


def is_control_lora(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names is a control-LoRA."""
    return _MARK in names


@dataclass(frozen=True)
class ControlLora:
    """ControlNet that a control-LoRA makes from a UNet. Tensors are named as in diffusers' `ControlNetModel`.

    Attributes:
        whole: tensor -> its name in the file.
        changed: weight -> name in the file of the layer whose halves change it.
        of_unet: tensors that are the UNet's.
        values: number of values of the whole ControlNet.
    """

    whole: Mapping[str, str]
    changed: Mapping[str, str]
    of_unet: Collection[str]
    values: int

    @classmethod
    def of(cls, stored: Layers, unet: Layers) -> ControlLora:
        """Account for each tensor of a file.

        Args:
            stored: the file's.
            unet: those of the model's UNet, in diffusers' layout.

        Raises:
            CatalogueError: a tensor belongs to no layer, does not fit it, or is missing.
        """
        encoder = {name: shape for name, shape in unet.items() if name.startswith(ENCODER)}
        whole, changed = _place_all(stored, encoder)
        for weight, layer in changed.items():
            _check_halves(stored, layer, encoder.get(weight))
            if weight in whole:
                raise CatalogueError(f"it has both {whole[weight][:120]} and its halves; it must have one of them")
        for tensor, name in whole.items():
            if tensor in encoder and encoder[tensor] != stored[name]:
                shapes = f"{list(stored[name])}, and that of the model {list(encoder[tensor])}"
                raise CatalogueError(f"its {name[:120]} is {shapes}: it is made for another model")
        _require_own_layers(whole, encoder)
        own = sum(prod(stored[name]) for tensor, name in whole.items() if tensor not in encoder)
        of_unet = encoder.keys() - whole.keys() - changed.keys()
        return cls(whole, changed, of_unet, own + sum(map(prod, encoder.values())))


def _place_all(stored: Layers, encoder: Layers) -> tuple[dict[str, str], dict[str, str]]:
    """The tensors that are whole, and the weights that are changed, as `ControlLora` has them."""
    places = _Places(stored, encoder)
    whole: dict[str, str] = {}
    changed: dict[str, str] = {}
    for name in sorted(stored.keys() - {_MARK}):
        layer, _, part = name.rpartition(".")
        place = places.find(layer) if part in ("weight", "bias", *_HALVES) else None
        if place is None:
            raise CatalogueError(f"no layer of a ControlNet of the model takes its {name[:120]}")
        found, tensor, own = (
            (changed, f"{place}.weight", layer) if part in _HALVES else (whole, f"{place}.{part}", name)
        )
        if found.setdefault(tensor, own) != own:
            raise CatalogueError(f"it names one layer twice: {found[tensor][:120]}, {own[:120]}")
    return whole, changed


class _Places:
    """Finder of the layers of a ControlNet by their names in the original release."""

    def __init__(self, stored: Layers, encoder: Layers) -> None:
        layers = {name.rpartition(".")[0] for name in encoder}
        self._by_flat_name = {flat_name(layer): layer for layer in layers}
        self._shapes = {flat_name(name.removesuffix(".weight")): shape for name, shape in encoder.items()}
        numbers = [int(found[1]) for name in stored if (found := _HINT.match(name.rpartition(".")[0]))]
        self._last_hint = max(numbers, default=0)

    def find(self, layer: str) -> str | None:
        """The layer under diffusers' name; None where there is none."""
        if len(layer) > _LONGEST:
            return None
        if found := _ZERO.match(layer):
            return f"controlnet_down_blocks.{int(found[1])}"
        if _MIDDLE.match(layer):
            return "controlnet_mid_block"
        if found := _HINT.match(layer):
            number = int(found[1])
            part = {0: "conv_in", self._last_hint: "conv_out"}.get(number, f"blocks.{number // 2 - 1}")
            return None if number % 2 else f"controlnet_cond_embedding.{part}"
        named = layers_named(layer.replace(".", "_"), self._shapes) or []
        return self._by_flat_name.get(named[0]) if len(named) == 1 else None


def _check_halves(stored: Layers, layer: str, weight: tuple[int, ...] | None) -> None:
    """Refuse halves that do not multiply to a layer's weight; raises CatalogueError."""
    up, down = (stored.get(f"{layer}.{half}") for half in _HALVES)
    if up is None or down is None:
        missing = _HALVES[up is not None]
        raise CatalogueError(f"it has one half of {layer[:120]}, and lacks the other: {missing}")
    if weight is None:
        raise CatalogueError(f"its {layer[:120]} has halves, but the model has no such layer")
    rank = down[0] if down else 0
    fits = up[:2] == (weight[0], rank) and prod(up) == weight[0] * rank and prod(down) == rank * prod(weight[1:])
    if not rank or not fits:
        shapes = f"{list(up)} and {list(down)}, and the layer of the model is {list(weight)}"
        raise CatalogueError(f"the halves of its {layer[:120]} are {shapes}: it is made for another model")


def _require_own_layers(whole: Mapping[str, str], encoder: Layers) -> None:
    """Refuse a file without a layer that the UNet does not have; raises CatalogueError."""
    results = {found[0] for name in encoder if (found := _RESULTS.match(name))}
    needed = {f"controlnet_down_blocks.{number}": f"zero_convs.{number}.0" for number in range(1 + len(results))}
    needed |= {
        "controlnet_mid_block": "middle_block_out.0",
        "controlnet_cond_embedding.conv_in": "input_hint_block.0",
        "controlnet_cond_embedding.conv_out": "the last layer of input_hint_block",
    }
    for place, layer in needed.items():
        for part in ("weight", "bias"):
            if f"{place}.{part}" not in whole:
                raise CatalogueError(f"it lacks the {part} of {layer}")
