"""Activations of each component class, counted on torch's meta device, one JSON file a class.

`python -m bench.architectures --write` writes the files, an entry for each published or shipped configuration.
Attention counts as fused (no matrix of scores). Costs marked `cudnn` are convolutions with the workspace that
cuDNN takes for them; other scratch memory of kernels and what an allocator wastes are not included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from contracts.controlnet_classes import CLASSES_IN_DIFFUSERS
from contracts.memory.activations import UNKNOWN, ActivationCost, Activations, Retained


@dataclass(frozen=True)
class Entry:
    """One configuration and what was counted for it.

    Attributes:
        config: the configuration's entries that shape the activations.
    """

    config: Mapping[str, Any]
    activations: Activations


def find_activations(config: Mapping[str, Any]) -> Activations:
    """The activations of a component with this configuration.

    One that was not counted gets those of the nearest configuration of its class: values scaled by the ratio of
    widths, weights by its square; for a ControlNet with more blocks, with more residuals.
    Empty for a class that is unknown here.

    Raises:
        KeyError, TypeError, IndexError: the configuration lacks what its class always has.
    """
    pixels = works_on_pixels(config)
    entries = [one for one in read_table(class_of(config)) if pixels == works_on_pixels({**config, **one.config})]
    if not entries:
        return UNKNOWN
    config = {**config.get("text_config", {}), **config}  # of a model that reads images, too
    ratios = [_width(config, entry.config) / _width(entry.config, entry.config) for entry in entries]
    for entry in entries:
        if all(_plain(config.get(key, value)) == value for key, value in entry.config.items()):
            return entry.activations
    width, nearest = min(zip(ratios, entries, strict=True), key=lambda pair: abs(math.log(pair[0])))
    return _scaled(nearest.activations, width, _blocks(config) / _blocks(nearest.config))


def works_on_pixels(config: Mapping[str, Any]) -> bool:
    """Whether a denoiser works on pixels: its input is an image, or a smaller one beside it."""
    return class_of(config) == "UNet2DConditionModel" and config.get("in_channels") in (3, 6)


def _plain(value: Any) -> Any:
    """A value as JSON has it: the configuration of a loaded model holds tuples."""
    return list(value) if isinstance(value, tuple) else value


#: Class that a published configuration names -> the one that diffusers loads of its weights.
_LOADED_AS = {
    **CLASSES_IN_DIFFUSERS,
    "Qwen3ForCausalLM": "Qwen3Model",
    "MT5EncoderModel": "T5EncoderModel",
}
#: Class that older checkpoints name for several transformers, and the norm of its blocks -> the one that diffusers
#: (0.42) loads.
OLD_TRANSFORMER = "Transformer2DModel"
_BY_NORM = {"ada_norm_zero": "DiTTransformer2DModel", "ada_norm_single": "PixArtTransformer2DModel"}


def class_of(config: Mapping[str, Any]) -> str:
    """Name of a component's class: diffusers' entry, else transformers'."""
    named = str(config.get("_class_name") or next(iter(config.get("architectures") or [""])))
    if named == OLD_TRANSFORMER:
        return _BY_NORM.get(str(config.get("norm_type")), named)
    return _LOADED_AS.get(named, named)


@cache
def read_table(class_name: str) -> tuple[Entry, ...]:
    """All entries of a class."""
    file = files(__name__) / f"{class_name}.json"
    if not class_name.isidentifier() or not file.is_file():
        return ()
    return tuple(entry_of(entry) for entry in json.loads(file.read_text(encoding="utf-8")))


def entry_of(entry: Mapping[str, Any]) -> Entry:
    """An entry as it is written in a table."""

    def costs(key: str) -> tuple[ActivationCost, ...]:
        return tuple(ActivationCost(**cost) for cost in entry.get(key, ()))

    return Entry(
        entry["config"],
        Activations(
            costs("peaks"),
            costs("encoding"),
            costs("one_adapter"),
            costs("more_adapters"),
            ActivationCost(**entry.get("residuals", {})),
            Retained(ActivationCost(**entry.get("latents", {})), ActivationCost(**entry.get("prompt", {}))),
            entry.get("encodes_controls", False),
        ),
    )


def _width(config: Mapping[str, Any], counted: Mapping[str, Any]) -> int:
    """Channels that the largest tensors are proportional to, from the entry that a counted configuration has."""
    for channels in ("block_out_channels", "channels"):
        if channels in counted:
            return int(config[channels][0])
    if "decoder_block_out_channels" in counted:  # the published ones leave diffusers' default out
        return int(config.get("decoder_block_out_channels", counted["decoder_block_out_channels"])[0])
    key = next((key for key in ("hidden_size", "d_model", "dim", "base_dim") if key in counted), None)
    return int(config["num_attention_heads"] * config["attention_head_dim"] if key is None else config[key])


def _blocks(config: Mapping[str, Any]) -> int:
    places = config.get("control_layers_places")
    return len(places) if places else int(config.get("num_layers", 1) + config.get("num_single_layers", 0))


#: A ControlNet ends with its blocks' outputs, their projections, and these scaled.
_RESIDUAL_COPIES = 3


def _scaled(activations: Activations, width: float, blocks: float) -> Activations:
    more = _RESIDUAL_COPIES * max(0.0, blocks - 1) * activations.residuals.pixel

    def scale(cost: ActivationCost) -> ActivationCost:
        return ActivationCost(
            pixel=(cost.pixel + more) * width,
            token=cost.token * width,
            token_squared=cost.token_squared * width,
            token_pairs=cost.token_pairs * width,
            fixed=cost.fixed * width,
            layers=None if cost.layers is None else int(cost.layers * width**2),
            cudnn=cost.cudnn,
        )

    def scale_all(costs: tuple[ActivationCost, ...]) -> tuple[ActivationCost, ...]:
        return tuple(map(scale, costs))

    return replace(
        activations,
        peaks=scale_all(activations.peaks),
        encoding=scale_all(activations.encoding),
        one_adapter=scale_all(activations.one_adapter),
        more_adapters=scale_all(activations.more_adapters),
        residuals=ActivationCost(pixel=activations.residuals.pixel * width * max(1.0, blocks)),
        counted=False,
    )
