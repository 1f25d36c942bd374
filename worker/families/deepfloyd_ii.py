"""DeepFloyd IF, stage II: a UNet that makes larger images, and is given those of stage I beside its own pixels.

It runs in jobs of stage I only, whose reading of the prompt it is given. Arguments are those of diffusers'
`IFSuperResolutionPipeline`, `IFImg2ImgSuperResolutionPipeline` and `IFInpaintingSuperResolutionPipeline`
(`diffusers.pipelines.deepfloyd_if`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.deepfloyd_parts import ENCODING, read_images, start, usual_arguments
from worker.families.inputs import GenerationInputs


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of stage II's pipelines."""
    cascade = inputs.job.cascade
    smaller = {"image": inputs.latents, "noise_level": None if cascade is None else cascade.noise_level}
    return {**usual_arguments(inputs), **start(inputs, "original_image"), **smaller}


def _own_noising(pipeline: Any) -> None:
    """Give a job its own scheduler for the noise on the smaller image: its tables move to the device."""
    pipeline.image_noising_scheduler = copy.deepcopy(pipeline.image_noising_scheduler)


def _misfit(components: Mapping[str, Any]) -> str | None:
    unet = components["unet"].config
    return first_difference(
        {
            "in_channels of the UNet": (unet.in_channels, 6),
            "out_channels of the UNet": (unet.out_channels, 6),
            "class_embed_type of the UNet": (unet.class_embed_type, "timestep"),
        }
    )


FAMILY = DiffusersFamily(
    id="deepfloyd-ii",
    pipelines={
        Mode.TXT2IMG: "IFSuperResolutionPipeline",
        Mode.IMG2IMG: "IFImg2ImgSuperResolutionPipeline",
        Mode.INPAINT: "IFInpaintingSuperResolutionPipeline",
    },
    controlnet="",
    multi_controlnet="",
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    repeated_blocks=("ResnetBlock2D", "Attention"),
    t5=None,
    vae=None,
    encoding=ENCODING,
    arguments=arguments,
    misfit=_misfit,
    patch=_own_noising,
    read_images=read_images,
    absent=frozenset({"text_encoder", "tokenizer"}),
)
