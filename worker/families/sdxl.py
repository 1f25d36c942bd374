"""Stable Diffusion XL: a UNet with two CLIP encoders and size conditioning.

Arguments are those of diffusers' `StableDiffusionXLPipeline` and its variants
(`diffusers.pipelines.stable_diffusion_xl`, `diffusers.pipelines.controlnet`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, Unions, first_difference
from worker.families.inputs import GenerationInputs, single_or_list
from worker.families.prompts import PromptEncoding
from worker.families.sdxl_parts import negative_prompt, rescale, usual_arguments


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of an SDXL pipeline."""
    return {**usual_arguments(inputs), **_BY_MODE[inputs.job.mode](inputs), **_handing_over(inputs)}


def _handing_over(inputs: GenerationInputs) -> dict[str, Any]:
    """Arguments with which the call stops where a refiner goes on."""
    refiner = inputs.job.refiner
    return {} if refiner is None else {"denoising_end": refiner.switch_at, "output_type": "latent"}


def _txt2img(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.size, **rescale(inputs)}


def _img2img(inputs: GenerationInputs) -> dict[str, Any]:
    # The pipeline takes no size: its output has the size of the image.
    return {**inputs.start, **rescale(inputs)}


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.size, **inputs.start, **inputs.inpaint_mask, **rescale(inputs)}


def _controlnet(inputs: GenerationInputs) -> dict[str, Any]:
    control = _control(inputs)
    if "control_mode" not in control:
        control["image"] = control.pop("control_image")
    return {**inputs.size, **control}


def _controlnet_img2img(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.size, **inputs.start, **_control(inputs)}


def _controlnet_inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.size, **inputs.start, **inputs.inpaint_mask, **_control(inputs), **rescale(inputs)}


def _control(inputs: GenerationInputs) -> dict[str, Any]:
    modes = [control.mode for control in inputs.job.controls]
    if None in modes:
        return {"control_image": single_or_list(inputs.controls), **inputs.control_weights()}
    return {"control_image": list(inputs.controls), "control_mode": modes, **inputs.control_weights()}


def _misfit(components: Mapping[str, Any]) -> str | None:
    unet, vae = components["unet"].config, components["vae"].config
    first, second = components["text_encoder"].config, components["text_encoder_2"].config
    # The second encoder's vector, and the six numbers of sizes and crops.
    conditions = second.projection_dim + 6 * (unet.addition_time_embed_dim or 0)
    return first_difference(
        {
            "addition_embed_type of the UNet": (unet.addition_embed_type, "text_time"),
            "cross_attention_dim of the UNet": (
                unet.cross_attention_dim,
                first.hidden_size + second.hidden_size,
            ),
            "projection_class_embeddings_input_dim of the UNet": (
                unet.projection_class_embeddings_input_dim,
                conditions,
            ),
            "out_channels of the UNet": (unet.out_channels, vae.latent_channels),
        }
    ) or (
        None
        if unet.in_channels in (vae.latent_channels, 2 * vae.latent_channels + 1)
        else f"in_channels of the UNet is {unet.in_channels}; {vae.latent_channels}, or "
        f"{2 * vae.latent_channels + 1} to inpaint, are needed"
    )


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.IMG2IMG: _img2img,
    Mode.INPAINT: _inpaint,
    Mode.CONTROLNET: _controlnet,
    Mode.CONTROLNET_IMG2IMG: _controlnet_img2img,
    Mode.CONTROLNET_INPAINT: _controlnet_inpaint,
}

FAMILY = DiffusersFamily(
    id="sdxl",
    pipelines={
        Mode.TXT2IMG: "StableDiffusionXLPipeline",
        Mode.IMG2IMG: "StableDiffusionXLImg2ImgPipeline",
        Mode.INPAINT: "StableDiffusionXLInpaintPipeline",
        Mode.CONTROLNET: "StableDiffusionXLControlNetPipeline",
        Mode.CONTROLNET_IMG2IMG: "StableDiffusionXLControlNetImg2ImgPipeline",
        Mode.CONTROLNET_INPAINT: "StableDiffusionXLControlNetInpaintPipeline",
    },
    controlnet="ControlNetModel",
    multi_controlnet="MultiControlNetModel",
    unions=Unions(
        controlnet="ControlNetUnionModel",
        pipelines={
            Mode.CONTROLNET: "StableDiffusionXLControlNetUnionPipeline",
            Mode.CONTROLNET_IMG2IMG: "StableDiffusionXLControlNetUnionImg2ImgPipeline",
            Mode.CONTROLNET_INPAINT: "StableDiffusionXLControlNetUnionInpaintPipeline",
        },
    ),
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    repeated_blocks=("BasicTransformerBlock",),
    t5=None,
    encoding=PromptEncoding(
        prompt_fields=("prompt", "prompt_2"),
        option_fields=("clip_skip",),
        negative_option_fields=(),
        negative_prompt=negative_prompt,
        results={"prompt_embeds": 0, "pooled_prompt_embeds": 2},
        constants={"do_classifier_free_guidance": False},
    ),
    arguments=arguments,
    misfit=_misfit,
)
