"""Reads VAEs that take the place of a model's own: a folder, weights beside `config.json`, or a file alone.

A file alone says neither its architecture nor its factors: they are taken to be those of the model's own VAE, and
every layer must then have its weights. Knows nothing of devices.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import load_file

from contracts.errors import CatalogueError
from contracts.weights.vae_files import latent_space, read_latent_space
from worker.checkpoints.controls.controlnets import load_configured
from worker.checkpoints.one_file.component import assemble, renamed
from worker.checkpoints.quantized.scaled import unscaled
from worker.checkpoints.tracking import Tensors

#: What a file in the original layout may have before each name.
_PREFIX = re.compile(r"^(first_stage_model|vae)\.")
#: A layer that only the original layout names so.
_ORIGINAL = "decoder.mid.block_1.conv1.weight"
#: What training leaves in a file: the losses' networks, and averages beside the weights.
_HARMLESS = re.compile(r"^(loss|model_ema)\.")


def load_vae(place: Path, own: Any, dtype: torch.dtype) -> Any:
    """A VAE that takes the place of a model's `own`, in host memory.

    Args:
        place: its folder, its weights beside `config.json`, or a file alone.

    Raises:
        CatalogueError: it is of another class, lacks weights, holds some that no layer takes, or makes images of
            other latents.
    """
    found = read_latent_space(place)
    if found is None:
        vae = _load_file(place, own, dtype)
    else:
        difference = found.difference(latent_space({**own.config, "_class_name": type(own).__name__}))
        if difference is not None:
            raise CatalogueError(difference)
        vae_class: Any = diffusers.AutoencoderTiny if found.is_tiny else diffusers.AutoencoderKL
        vae = load_configured(vae_class, place, "the VAE", dtype)
    fix_vae_dtype(vae, dtype)
    return vae


def fix_vae_dtype(vae: Any, dtype: torch.dtype) -> None:
    """Keep a VAE that overflows in float16 (SDXL's) in float32 there; callers cast its inputs.

    With `force_upcast`, diffusers' SDXL pipelines (0.42) cast the shared weights to float32 and back in every
    call, also in bfloat16, where that is not needed.
    `test_a_vae_that_overflows_in_float16_works_in_float32_wherever_it_lives` fails when that changes.
    """
    if getattr(vae.config, "force_upcast", False):
        if dtype is torch.float16:
            vae.to(torch.float32)
        vae.register_to_config(force_upcast=False)


def _load_file(file: Path, own: Any, dtype: torch.dtype) -> Any:
    if not isinstance(own, diffusers.AutoencoderKL):
        raise CatalogueError(
            f"the model's own VAE is a {type(own).__name__}: put the file's config.json beside it"
        )
    stored = {_PREFIX.sub("", name): tensor for name, tensor in unscaled(load_file(file), dtype).items()}
    stored = {name: tensor for name, tensor in stored.items() if not _HARMLESS.match(name)}
    config = dict(own.config)

    def convert(tensors: Tensors) -> Any:
        return convert_ldm_vae_checkpoint(tensors, config)

    tensors = renamed(stored, convert, "VAE") if _ORIGINAL in stored else stored
    remedy = (
        "without a config.json beside its file, a VAE must have the architecture of the model's own; put its "
        "config.json there, or use its folder"
    )
    return assemble(type(own), config, tensors, dtype, "VAE", remedy)
