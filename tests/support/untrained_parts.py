"""What the small untrained checkpoints have in common: widths, seeded weights, the image VAE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch

#: Width of all text encoders.
WIDTH = 32
#: Side of the images that the models make by default, in pixels.
SIDE = 64


def seeded(make: Callable[[], Any], seed: int = 0) -> Any:
    """Return what `make` builds under this seed, in evaluation mode."""
    torch.manual_seed(seed)
    return make().eval()


def stirred(model: Any, std: float = 0.1) -> Any:
    """Give values to the weights that a fresh model has at zero, so that all its inputs act."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=std, generator=generator)
    return model


def vae(channels: int = 4, **more: Any) -> Any:
    """The image VAE of Stable Diffusion: an eighth of the side."""
    options: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "latent_channels": channels,
        "norm_num_groups": 4, "sample_size": SIDE, **more,
    }  # fmt: skip
    return seeded(lambda: diffusers.AutoencoderKL(**options))
