"""Small upscalers with random weights, by the names of the tensors in published files; and all tiles in one go."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file

from contracts.weights.networks import UpscalerFacts
from worker.networks.images import Pixels
from worker.networks.upscaler import empty_canvas, tile_steps

Weights = dict[str, torch.Tensor]


def upscale_pixels(
    network: torch.nn.Module, facts: UpscalerFacts, pixels: Pixels, side: int, device: torch.device
) -> Pixels:
    """Upscale an image (height, width, 3) of 0…255 in one go, in tiles of this side."""
    canvas = empty_canvas(facts, pixels)
    for upscale_tile in tile_steps(network, facts, pixels, side, canvas, device):
        upscale_tile()
    return canvas


def write_compact(file: Path, scale: int = 2, features: int = 4, layers: int = 2) -> Path:
    """A Compact: each output pixel depends on `layers` + 2 pixels around its own."""
    weights: Weights = {}
    sizes = [3, *[features] * (layers + 1), 3 * scale**2]
    for index, (taken, given) in enumerate(pairwise(sizes)):
        weights |= _convolution(f"body.{2 * index}", taken, given)
        if index <= layers:
            weights[f"body.{2 * index + 1}.weight"] = torch.full((given,), 0.25)
    save_file(weights, file)
    return file


def write_esrgan(file: Path, scale: int = 4, features: int = 4, blocks: int = 1, growth: int = 32) -> Path:
    """A Real-ESRGAN; with a scale of 2 or 1 it shuffles its input's pixels, as the published one for 2 does."""
    shuffle = 4 // scale
    weights = _convolution("conv_first", 3 * shuffle**2, features)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for layer in range(1, 6):
                name = f"body.{block}.rdb{dense}.conv{layer}"
                weights |= _convolution(name, features + (layer - 1) * growth, growth if layer < 5 else features)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        weights |= _convolution(name, features, features)
    save_file(weights | _convolution("conv_last", features, 3), file)
    return file


def _convolution(name: str, taken: int, given: int) -> Weights:
    generator = torch.Generator().manual_seed(len(name) + 7 * taken + given)
    weight = torch.randn(given, taken, 3, 3, generator=generator) / math.sqrt(9 * taken)
    return {f"{name}.weight": weight, f"{name}.bias": torch.randn(given, generator=generator) / 10}
