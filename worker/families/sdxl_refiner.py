"""The refiner of Stable Diffusion XL: a UNet behind the second CLIP encoder alone, which is told a rating.

As a model of its own it makes images of images; in a job with a `refiner` it runs the last steps of the schedule.
Arguments are those of diffusers' `StableDiffusionXLImg2ImgPipeline` and `StableDiffusionXLInpaintPipeline`
(`diffusers.pipelines.stable_diffusion_xl`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs
from worker.families.prompts import PromptEncoding
from worker.families.sdxl_parts import negative_prompt, rescale, usual_arguments


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a refiner's pipeline."""
    masked = {**inputs.size, **inputs.inpaint_mask} if inputs.job.mode is Mode.INPAINT else {}
    start = inputs.start if inputs.job.refiner is None else _going_on(inputs)
    return {**usual_arguments(inputs), **rescale(inputs), **start, **masked}


def _going_on(inputs: GenerationInputs) -> dict[str, Any]:
    """Arguments with which the call goes on with the latents of the first model, without adding noise."""
    refiner = inputs.job.refiner
    if refiner is None or inputs.latents is None:
        raise ValueError("a refiner goes on with latents, and the job has none")
    return {
        "image": inputs.latents,
        "denoising_start": refiner.switch_at,
        "aesthetic_score": refiner.aesthetic_score,
        "negative_aesthetic_score": refiner.negative_aesthetic_score,
    }


def _misfit(components: Mapping[str, Any]) -> str | None:
    unet, vae, encoder = (components[name].config for name in ("unet", "vae", "text_encoder_2"))
    # The encoder's vector, and the five numbers of sizes, crops and rating.
    conditions = encoder.projection_dim + 5 * (unet.addition_time_embed_dim or 0)
    return first_difference(
        {
            "addition_embed_type of the UNet": (unet.addition_embed_type, "text_time"),
            "cross_attention_dim of the UNet": (unet.cross_attention_dim, encoder.hidden_size),
            "projection_class_embeddings_input_dim of the UNet": (
                unet.projection_class_embeddings_input_dim,
                conditions,
            ),
            "in_channels of the UNet": (unet.in_channels, vae.latent_channels),
            "out_channels of the UNet": (unet.out_channels, vae.latent_channels),
        }
    )


FAMILY = DiffusersFamily(
    id="sdxl-refiner",
    pipelines={
        Mode.IMG2IMG: "StableDiffusionXLImg2ImgPipeline",
        Mode.INPAINT: "StableDiffusionXLInpaintPipeline",
    },
    controlnet="",
    multi_controlnet="",
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    repeated_blocks=("BasicTransformerBlock",),
    t5=None,
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=(),
        negative_option_fields=(),
        negative_prompt=negative_prompt,
        results={"prompt_embeds": 0, "pooled_prompt_embeds": 2},
        constants={"do_classifier_free_guidance": False},
    ),
    arguments=arguments,
    misfit=_misfit,
    absent=frozenset({"text_encoder", "tokenizer"}),
)
