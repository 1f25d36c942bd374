"""DeepFloyd IF, stage I: a UNet that makes small images as they are, without latents, of T5's reading of a prompt.

Arguments are those of diffusers' `IFPipeline`, `IFImg2ImgPipeline` and `IFInpaintingPipeline`
(`diffusers.pipelines.deepfloyd_if`). Their safety checker and watermark are not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.deepfloyd_parts import ENCODING, read_images, start, usual_arguments
from worker.families.inputs import GenerationInputs


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of stage I's pipelines."""
    return {**usual_arguments(inputs), **start(inputs, "image")}


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
    encoding=ENCODING,
    arguments=arguments,
    misfit=_misfit,
    read_images=read_images,
)
