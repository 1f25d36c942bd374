"""T2I-Adapters in one file, in diffusers' layout: their configuration, by the shapes of their layers, and their
features, which a UNet must have places for. Loads nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.rows.controlnets import T2I_ADAPTER
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import AdapterRefused, CatalogueError
from contracts.weights.denoiser_files import Layers, find_suited_models
from contracts.weights.formats.safetensors import Tensor

#: Beginning of the names of its blocks.
_BODY = "adapter.body."
#: Channels of the first layer -> channels of a control image, and pixels along each side of one of its positions.
_FIRST_CHANNELS: Mapping[int, tuple[int, int]] = {192: (3, 8), 64: (1, 8), 768: (3, 16), 256: (1, 16)}
#: That of SDXL is of a type of its own.
_XL_FACTOR = 16
#: Of this type, features with this number and later ones are half as large.
_XL_HALVED_FROM = 2
#: Pixels along each side for one position of a UNet's latents.
LATENT_STRIDE = 8
#: Channels of a feature, and pixels along each side for one of its positions.
Place = tuple[int, int]


def is_t2i_adapter(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names is a T2I-Adapter in diffusers' layout."""
    return any(name.startswith(_BODY) for name in names)


def t2i_config(layers: Layers) -> dict[str, Any]:
    """Return the configuration of the T2I-Adapter with these layers.

    Raises:
        CatalogueError: they are not those of any that diffusers makes.
    """
    is_light = f"{_BODY}0.out_conv.weight" in layers
    first = f"{_BODY}0.in_conv.weight" if is_light else "adapter.conv_in.weight"
    channels = _FIRST_CHANNELS.get(layers[first][1]) if len(layers.get(first, ())) == 4 else None
    if channels is None:
        known = ", ".join(map(str, _FIRST_CHANNELS))
        raise CatalogueError(f"its layer {first} does not read {known} channels, as those of T2I-Adapters do")
    image_channels, factor = channels
    last = "out_conv" if is_light else "resnets.0.block1"
    names = (f"{_BODY}{number}.{last}.weight" for number in range(len(layers)))
    widths = [layers[name][0] for name in takewhile(lambda name: len(layers.get(name, ())) == 4, names)]
    blocks = sum(name.startswith(f"{_BODY}0.") and name.endswith(".block1.weight") for name in layers)
    # Each of them has two layers with weight and bias: more would be counted for long, and are not there.
    if not widths or 4 * blocks * len(widths) > len(layers):
        raise CatalogueError("it is not a whole T2I-Adapter in diffusers' layout")
    kind = "light_adapter" if is_light else "full_adapter_xl" if factor == _XL_FACTOR else "full_adapter"
    config = {
        "_class_name": T2I_ADAPTER,
        "in_channels": image_channels,
        "channels": widths[:-1] if is_light else widths,
        "num_res_blocks": blocks,
        "downscale_factor": factor,
        "adapter_type": kind,
    }
    _require_layers(layers, _layers_of(config))
    return config


def _require_layers(layers: Layers, needed: Layers) -> None:
    for name in sorted(layers.keys() | needed.keys()):
        own, other = layers.get(name), needed.get(name)
        if own != other:
            wrong = f"its {name[:120]} is {list(own)} in place of {list(other)}" if own and other else None
            reason = wrong or (f"no layer takes its {name[:120]}" if own else f"it lacks {name[:120]}")
            raise CatalogueError(f"it is not a whole T2I-Adapter: {reason}")


def _layers_of(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The layers that diffusers (0.42) makes of a configuration."""
    widths, is_light = list(config["channels"]), config["adapter_type"] == "light_adapter"
    read = config["in_channels"] * config["downscale_factor"] ** 2
    found: dict[str, tuple[int, ...]] = {}

    def add(name: str, out: int, into: int, side: int) -> None:
        found[f"adapter.{name}.weight"], found[f"adapter.{name}.bias"] = (out, into, side, side), (out,)

    outs = [*widths, widths[-1]] if is_light else widths
    ins = [read if is_light else widths[0], *outs[:-1]]
    if not is_light:
        add("conv_in", widths[0], read, 3)
    for number, (out, into) in enumerate(zip(outs, ins, strict=True)):
        width = out // 4 if is_light else out
        if is_light or out != into:
            add(f"body.{number}.in_conv", width, into, 1)
        for block in range(config["num_res_blocks"]):
            add(f"body.{number}.resnets.{block}.block1", width, width, 3)
            add(f"body.{number}.resnets.{block}.block2", width, width, 3 if is_light else 1)
        if is_light:
            add(f"body.{number}.out_conv", out, width, 1)
    return found


def features_of(config: Mapping[str, Any]) -> list[Place]:
    """The features that a T2I-Adapter with this configuration makes, from the first on."""
    factor, kind, widths = config["downscale_factor"], config["adapter_type"], list(config["channels"])
    if kind == "light_adapter":
        widths.append(widths[-1])
    return [
        (channels, factor * (2 ** (number >= _XL_HALVED_FROM) if kind == "full_adapter_xl" else 2**number))
        for number, channels in enumerate(widths)
    ]


def places_of(blocks: Sequence[tuple[int, bool]]) -> list[Place]:
    """What each block of a UNet takes: those with attention before they halve the image, others after it.

    Args:
        blocks: channels of each, on the way down, and whether it has attention.
    """
    found, stride = [], LATENT_STRIDE
    for number, (channels, has_attention) in enumerate(blocks):
        next_stride = stride if number == len(blocks) - 1 else 2 * stride
        found.append((channels, stride if has_attention else next_stride))
        stride = next_stride
    return found


def t2i_misfit(features: Sequence[Place], places: Sequence[Place]) -> str | None:
    """Return why features have no places in a UNet; None: they have.

    A UNet takes one feature for each of its blocks on the way down, and one more where it is as large as the last.
    """
    count = len(places)
    if list(features[:count]) == list(places) and list(features[count:]) in ([], list(places[-1:])):
        return None
    made, taken = _text(features), _text(places)
    return f"it makes features of {made}, and the model takes {taken}: it is made for another model"


def find_t2i_models(tensors: Mapping[str, Tensor], catalogue: Catalogue) -> tuple[str, list[str]]:
    """Find the family that a T2I-Adapter's file is for, and those of its models that it suits.

    Returns:
        Without any model where none can be compared on this machine.

    Raises:
        AdapterRefused: it is not a whole T2I-Adapter, or suits no model here.
    """
    try:
        config = t2i_config({name: tensor.shape for name, tensor in tensors.items()})
    except CatalogueError as error:
        raise AdapterRefused(str(error)) from None
    return find_suited_models(
        (row for row in FAMILIES.values() if row.t2i_multiple is not None),
        catalogue,
        may_suit=lambda family: family.t2i_multiple == config["downscale_factor"],
        misfit=partial(_misfit, features_of(config)),
        no_family="the catalogue has no model of a family that it could be for",
    )


def _misfit(features: Sequence[Place], layers: Layers, model: ModelSpec) -> str | None:
    blocks: list[tuple[int, bool]] = []
    while (name := f"down_blocks.{len(blocks)}.resnets.0.conv1.weight") in layers:
        attention = f"down_blocks.{len(blocks)}.attentions."
        blocks.append((layers[name][0], any(layer.startswith(attention) for layer in layers)))
    reason = t2i_misfit(features, places_of(blocks))
    return None if reason is None else f"{model.id}: {reason}"


def _text(features: Sequence[Place]) -> str:
    return ", ".join(f"{channels} channels at 1/{stride}" for channels, stride in features) or "none"
