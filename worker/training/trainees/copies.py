"""New ControlNets, in host memory: copies of a denoiser's layers, and layers of zeros that change nothing yet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ControlNetModel

from worker.checkpoints.controls.controlnets import config_beside

#: Widths of the layers that scale a control image down, each but the first to half of its size.
_WIDTHS = (16, 32, 96, 256)
#: Class -> its numbers of blocks: one of how many of the transformer's. Of the published checkpoints these are as
#: many as `from_transformer` copies: 12 of SD3's 24, 4 of FLUX.1's 19 and 10 of its 38, 5 of Qwen-Image's 60.
_ONE_OF: Mapping[str, Mapping[str, int]] = {
    "SD3ControlNetModel": {"num_layers": 2},
    "FluxControlNetModel": {"num_layers": 5, "num_single_layers": 4},
    "QwenImageControlNetModel": {"num_layers": 12},
}


def copy_unet(unet: Any, levels: int, seed: int) -> Any:
    """Copy a UNet's encoder; what reads the control image is drawn from the seed.

    Args:
        levels: of the VAE, which scales an image down to half of its size between any two of them.

    Raises:
        ValueError: the VAE has too many.
    """
    if levels > len(_WIDTHS):
        raise ValueError(f"no ControlNet scales an image down as a VAE of {levels} levels does")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=_WIDTHS[:levels])


def copy_transformer(controlnet_class: Any, transformer: Any) -> Any:
    """Copy a transformer's embedders and the first of its blocks.

    As `from_transformer` of diffusers 0.42, which for SD3 changes the transformer's configuration, and takes as
    many blocks of a small transformer as of a large one. The new ControlNet's configuration is the one by which
    its file alone is read.
    """
    one_of = _ONE_OF[controlnet_class.__name__]
    sizes = {name: math.ceil(transformer.config[name] / share) for name, share in one_of.items()}
    with torch.random.fork_rng(devices=[]):
        net = controlnet_class.from_config(config_beside(controlnet_class, transformer, sizes))
    own = net.state_dict()
    copied = {name: tensor for name, tensor in transformer.state_dict().items() if name in own}
    net.load_state_dict(copied, strict=False)
    return net
