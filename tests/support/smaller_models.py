"""Built-in models with smaller denoisers, ControlNets and VAEs of random weights, in half of the time.

For tests that compare images with each other, whatever they show. Those of
`TRAINED_FAMILIES`; ids, families, text encoders, tokenizers and
schedulers are those of `models/`; what its trained weights show, `tests/models` and `make judge` ask.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from tests.support.trained import only_trained_families
from tests.support.untrained_parts import seeded, stirred, vae

_MODELS = BUILT_IN_CATALOGUE.parent
#: Checkpoints of other families, and of other classes.
_LEFT_OUT = ("shapes-sd15*", "shapes-kontext")
#: Of a denoiser's configuration, what is smaller than in `models/`. FLUX keeps its width, and both double blocks.
_DENOISERS: Mapping[str, tuple[str, Any, dict[str, Any]]] = MappingProxyType(
    {
        "sdxl": (
            "unet",
            diffusers.UNet2DConditionModel,
            {
                "block_out_channels": (32, 64),
                "attention_head_dim": (2, 2),
                "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            },
        ),
        "sd3": (
            "transformer",
            diffusers.SD3Transformer2DModel,
            {"num_layers": 2, "num_attention_heads": 2, "caption_projection_dim": 64},
        ),
        "flux": ("transformer", diffusers.FluxTransformer2DModel, {"num_single_layers": 1}),
    }
)


def write_smaller_models(folder: Path) -> Catalogue:
    """Write a folder like `models/`; returns its catalogue, without adapters, which do not fit the layers."""
    shutil.copytree(
        _MODELS,
        folder,
        ignore=shutil.ignore_patterns("*.py", "training", "unet", "transformer", "vae", *_LEFT_OUT),
    )
    for family, (name, kind, changes) in _DENOISERS.items():
        checkpoint = folder / f"shapes-{family}"
        denoiser = _smaller(kind, _MODELS / checkpoint.name / name, changes)
        denoiser.save_pretrained(checkpoint / name)
        _smaller_vae(_MODELS / checkpoint.name / "vae").save_pretrained(checkpoint / "vae")
        if family in _CONTROLNETS:
            for controlnet in (folder / "controlnets").glob(f"shapes-{family}-*"):
                shutil.rmtree(controlnet)
                _CONTROLNETS[family](denoiser).save_pretrained(controlnet)
    catalogue = only_trained_families(read_catalogue(folder / BUILT_IN_CATALOGUE.name))
    controlnets = tuple(row for row in catalogue.controlnets if row.kind != "t2i_adapter")
    return catalogue.model_copy(update={"loras": (), "ip_adapters": (), "controlnets": controlnets})


def _smaller(kind: Any, folder: Path, changes: Mapping[str, Any]) -> Any:
    model = stirred(seeded(lambda: kind.from_config({**kind.load_config(folder), **changes})))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)  # else prompts and references would hardly change an image
    return model


def _smaller_vae(folder: Path) -> Any:
    """A VAE whose latents are those of the one in the folder."""
    config = diffusers.AutoencoderKL.load_config(folder)
    kept = ("scaling_factor", "shift_factor", "use_quant_conv", "use_post_quant_conv", "force_upcast")
    return vae(config["latent_channels"], **{name: config[name] for name in kept})


#: Those that have the denoiser's width; FLUX's fit as they are.
_CONTROLNETS: Mapping[str, Any] = MappingProxyType(
    {
        "sdxl": lambda denoiser: diffusers.ControlNetModel.from_unet(
            denoiser, conditioning_embedding_out_channels=(8, 8, 8, 16)
        ),
        "sd3": lambda denoiser: diffusers.SD3ControlNetModel.from_transformer(
            denoiser, num_layers=1, num_extra_conditioning_channels=0
        ),
    }
)
