"""Starts networks of Stable Diffusion 1 from the shipped ones of SDXL, which draw from the same latents.

Layers of the same form are copied. Keys and values read one CLIP instead of two: they get the linear map from its
states that comes nearest to what they read before. What SDXL adds to the timestep for sizes and the pooled vector
becomes its mean over captions.
"""

import random
from typing import Any

import torch
from diffusers import ControlNetModel, DiffusionPipeline
from torch import Tensor

from models.training.data.captions import describe, draw_scene
from models.training.networks.export import checkpoint_folder, control_folder, make_tokenizers
from models.training.recipes import Conditions, load_recipe
from models.training.recipes.sdxl import usual_sizes

_CAPTIONS = 512
_READERS = ("attn2.to_k.weight", "attn2.to_v.weight")


@torch.no_grad()
def build() -> Any:
    """A UNet that draws much as `shapes-sdxl` does before it is trained."""
    sdxl, unet = _open_sdxl(), load_recipe("sd15").build()
    inherit(unet, sdxl.unet, *_read(sdxl))
    return unet


@torch.no_grad()
def build_control(kind: str, unet: Any) -> Any:
    """A ControlNet for such a UNet, from the shipped one of this kind for SDXL."""
    source = ControlNetModel.from_pretrained(control_folder("sdxl", kind), torch_dtype=torch.float32)
    widths = source.config.conditioning_embedding_out_channels
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)
    inherit(net, source, *_read(_open_sdxl()))
    return net


def _open_sdxl() -> Any:
    return DiffusionPipeline.from_pretrained(checkpoint_folder("sdxl"), dtype=torch.float32)


def _read(sdxl: Any) -> tuple[Conditions, Conditions]:
    """What both families read of some captions: SDXL, whose first CLIP is that of Stable Diffusion 1, before."""
    rng, words = random.Random("train/inheritance"), make_tokenizers()
    captions = [describe(draw_scene(rng), rng) for _ in range(_CAPTIONS)]
    before, after = (load_recipe(name).encode(sdxl.components, words, captions) for name in ("sdxl", "sd15"))
    return before, after


@torch.no_grad()
def inherit(unet: Any, source: Any, before: Conditions, after: Conditions) -> None:
    """Give `unet` the weights of `source`.

    Args:
        before: what `source` reads of some captions.
        after: what `unet` reads of the same captions.
    """
    nearest = torch.linalg.lstsq(after.hidden.flatten(0, 1), before.hidden.flatten(0, 1)).solution
    own = unet.state_dict()
    for name, weight in source.state_dict().items():
        if name in own:
            read = weight @ nearest.T if name.endswith(_READERS) else weight
            own[name].copy_(read.reshape(own[name].shape))  # SDXL's linear layers are 1×1 convolutions here
    own["time_embedding.linear_2.bias"] += mean_addition(source, before.pooled)


def mean_addition(unet: Any, pooled: Tensor) -> Tensor:
    """What SDXL's UNet adds to the timestep's embedding, as a mean over captions, at the usual sizes."""
    sizes = usual_sizes(len(pooled))
    angles = unet.add_time_proj(sizes.flatten()).reshape(len(pooled), -1)
    mean: Tensor = unet.add_embedding(torch.cat([pooled, angles], -1)).mean(0)
    return mean
