"""Reads T2I-Adapters, and compares their features with a UNet's places for them. Knows no devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file

from contracts.catalogue.rows.controlnets import T2I_ADAPTER
from contracts.errors import CatalogueError
from contracts.weights.configs import read_config
from contracts.weights.controls.t2i_adapter_files import features_of, places_of, t2i_config, t2i_misfit
from worker.checkpoints.controls.controlnets import load_configured
from worker.checkpoints.one_file.component import assemble
from worker.checkpoints.rehearsal import rehearse_controlnet
from worker.families import DiffusersFamily

#: Channels of control images: colours, or brightness alone.
_IMAGE_CHANNELS = (1, 3)


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


def load_t2i_file(path: Path, dtype: torch.dtype) -> Any:
    """One in host memory, from a file alone, whose layers say its configuration; raises as `load_t2i_adapter`."""
    tensors = load_file(path)
    config = t2i_config({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    del config["_class_name"]
    return assemble(diffusers.T2IAdapter, config, tensors, dtype, "T2I-Adapter", "take the whole file")


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
    """Refuse a T2I-Adapter whose features a UNet has no places for; raises CatalogueError."""
    config = denoiser.config
    attention = ["CrossAttn" in kind for kind in config["down_block_types"]]
    places = places_of(list(zip(config["block_out_channels"], attention, strict=True)))
    reason = t2i_misfit(features_of(adapter.config), places)
    if reason is not None:
        raise CatalogueError(reason)
