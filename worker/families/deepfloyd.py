"""DeepFloyd IF, stage I: a UNet that makes small images as they are, without latents, of T5's reading of a prompt.

Arguments are those of diffusers' `IFPipeline`, `IFImg2ImgPipeline` and `IFInpaintingPipeline`
(`diffusers.pipelines.deepfloyd_if`). Their safety checker and watermark are not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs
from worker.families.prompts import PromptEncoding, negative_if_guided

#: Cleaning depends on which packages are installed.
_AS_IT_IS = {"clean_caption": False}


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of stage I's pipelines."""
    job = inputs.job
    usual = {
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        **_AS_IT_IS,
    }
    if inputs.image is None:
        return {**usual, **inputs.size}
    start: dict[str, Any] = {"image": [to_pixels(inputs.image)] * job.num_images, "strength": job.strength}
    if inputs.mask is not None:
        start["mask_image"] = [_to_mask(inputs.mask)] * job.num_images
    return {**usual, **start}


def to_pixels(image: Image.Image) -> torch.Tensor:
    """Return an image as (1, 3, height, width) from -1 to 1, which no pipeline scales to a size of its own."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1)[None]


def _to_mask(mask: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(mask, dtype=np.float32) / 255)[None, None]


def read_images(pixels: torch.Tensor) -> torch.Tensor:
    """Return what a pipeline makes, from -1 to 1 and beyond, as images of 0…1."""
    return (pixels / 2 + 0.5).clamp(0, 1)


def read_t5(pipeline: Any, text: str, max_length: int, device: Any) -> None:
    """Have T5 read a text."""
    del max_length
    pipeline.encode_prompt([text], do_classifier_free_guidance=False, device=device, **_AS_IT_IS)


def _misfit(components: Mapping[str, Any]) -> str | None:
    unet = components["unet"].config
    pairs: dict[str, tuple[Any, Any]] = {
        "in_channels of the UNet": (unet.in_channels, 3),
        "out_channels of the UNet": (unet.out_channels, 6),
    }
    if components.get("text_encoder") is not None:
        width = components["text_encoder"].config.d_model
        pairs["encoder_hid_dim of the UNet"] = (unet.encoder_hid_dim, width)
    return first_difference(pairs)


FAMILY = DiffusersFamily(
    id="deepfloyd",
    pipelines={
        Mode.TXT2IMG: "IFPipeline",
        Mode.IMG2IMG: "IFImg2ImgPipeline",
        Mode.INPAINT: "IFInpaintingPipeline",
    },
    controlnet="",
    multi_controlnet="",
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    repeated_blocks=("ResnetBlock2D", "Attention"),
    t5="text_encoder",
    vae=None,
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=(),
        negative_option_fields=(),
        negative_prompt=negative_if_guided,
        results={"prompt_embeds": 0},
        constants={"do_classifier_free_guidance": False, **_AS_IT_IS},
        read_t5=read_t5,
    ),
    arguments=arguments,
    misfit=_misfit,
    read_images=read_images,
)
