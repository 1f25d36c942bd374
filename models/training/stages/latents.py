"""Shards of training scenes and their latents, encoded once and kept in a run folder. Knows no captions."""

import itertools
import random
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.training.data.captions import training_scenes
from models.training.data.drawing import Scene, render
from models.training.data.gallery import to_bytes, to_signal
from models.training.loop import RUNS
from models.training.stages import autoencoder

_PART = 64
_SUPERSAMPLING = 3
#: Plain shapes in the middle are learnt first; small ones and those elsewhere need more of the images.
_BASIC_SHARE = 0.3


def load_shard(latent_channels: int, shard: int, count: int) -> tuple[list[Scene], Tensor]:
    """`count` scenes of the denoiser's training split and their latents, from the cache where it has them."""
    name = f"latents/{shard}"
    scenes = list(itertools.islice(training_scenes(name, basic_share=_BASIC_SHARE), count))
    path = RUNS / f"latents{latent_channels}" / f"{shard}-{count}.safetensors"
    if path.exists():
        return scenes, load_file(path)["latents"].float()
    rng = random.Random(f"train/{name}/colours")
    pixels = to_bytes([render(scene, rng, _SUPERSAMPLING) for scene in scenes])
    latents = encode(autoencoder.load(latent_channels), pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"latents": latents.half()}, path)
    return scenes, latents


@torch.no_grad()
def encode(vae: Any, pixels: Tensor) -> Tensor:
    """Bytes to latents as a denoiser sees them: shifted and scaled."""
    vae = vae.to(memory_format=torch.channels_last)
    shift = vae.config.shift_factor or 0.0
    parts = [vae.encode(to_signal(part)).latent_dist.mode() for part in torch.split(pixels, _PART)]
    latents: Tensor = (torch.cat(parts) - shift) * vae.config.scaling_factor
    return latents.contiguous()
