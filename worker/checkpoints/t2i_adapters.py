"""Reads T2I-Adapters, and compares their features with a UNet's places for them. Knows no devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch

from contracts.catalogue.controlnets import T2I_ADAPTER
from contracts.errors import CatalogueError
from contracts.weights.parameter_counts import read_config
from worker.checkpoints.controlnets import load_configured
from worker.checkpoints.rehearsal import rehearse_controlnet
from worker.families import DiffusersFamily

#: Pixels along each side for one position of a UNet's latents.
_LATENT_STRIDE = 8
#: Channels of control images: colours, or brightness alone.
_IMAGE_CHANNELS = (1, 3)
#: Of the type for SDXL, features with this number and later ones are half as large.
_XL_HALVED_FROM = 2


def load_t2i_adapter(path: Path, dtype: torch.dtype) -> Any:
    """One T2I-Adapter, in host memory.

    Args:
        path: its folder, or its weights beside `config.json`.

    Raises:
        CatalogueError: it is of another kind, lacks weights, or holds some that no layer takes.
        Exception: whatever the libraries raise for damaged files.
    """
    check_t2i_config(read_config(path if path.is_dir() else path.parent))
    return load_configured(diffusers.T2IAdapter, path, "the T2I-Adapter", dtype)


def rehearse_t2i_adapter(family: DiffusersFamily, path: Path) -> None:
    """Check one as far as its description and headers tell; raises as `rehearse_controlnet`."""
    check_t2i_config(read_config(path if path.is_dir() else path.parent))
    rehearse_controlnet(replace(family, controlnet=T2I_ADAPTER), path)


def check_t2i_config(config: Mapping[str, Any]) -> None:
    """Refuse other classes, and adapters of images with other channels; raises CatalogueError."""
    if not config:
        raise CatalogueError("a T2I-Adapter needs its config.json beside its weights; it is missing")
    named, channels = config.get("_class_name"), config.get("in_channels", 3)
    if named != T2I_ADAPTER:
        raise CatalogueError(f"it is a {str(named)[:80]}, and its row says that it is a {T2I_ADAPTER}")
    if channels not in _IMAGE_CHANNELS:
        raise CatalogueError(f"it takes control images of {channels} channels (in_channels), not of 1 or 3")


def check_t2i_fits(adapter: Any, denoiser: Any) -> None:
    """Refuse a T2I-Adapter whose features a UNet has no places for; raises CatalogueError.

    A UNet takes one feature for each of its blocks on the way down, and one more where it is as large as the last.
    """
    features, places = _features(adapter.config), _places(denoiser.config)
    count = len(places)
    if features[:count] != places or features[count:] not in ([], places[-1:]):
        raise CatalogueError(
            f"it makes features of {_text(features)}, and the model takes {_text(places)}: it is made for another "
            "model"
        )


def _features(config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Channels of each feature, and pixels along each side for one of its positions."""
    factor, is_xl = config["downscale_factor"], config["adapter_type"] == "full_adapter_xl"
    return [
        (channels, factor * (2 ** (number >= _XL_HALVED_FROM) if is_xl else 2**number))
        for number, channels in enumerate(config["channels"])
    ]


def _places(config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The same of what each block takes: those with attention before they halve the image, others after it."""
    found, stride = [], _LATENT_STRIDE
    blocks = list(zip(config["down_block_types"], config["block_out_channels"], strict=True))
    for number, (kind, channels) in enumerate(blocks):
        next_stride = stride if number == len(blocks) - 1 else 2 * stride
        found.append((channels, stride if "CrossAttn" in kind else next_stride))
        stride = next_stride
    return found


def _text(features: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{channels} channels at 1/{stride}" for channels, stride in features)
