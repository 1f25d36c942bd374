"""Stable Diffusion 1 and 2: a UNet with one CLIP encoder. Includes checkpoints that inpaint, and LCM's.

Arguments are those of diffusers' `StableDiffusionPipeline` and its variants
(`diffusers.pipelines.stable_diffusion`, `diffusers.pipelines.controlnet`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs, single_or_list
from worker.families.prompts import PromptEncoding, negative_if_guided


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Stable Diffusion pipeline."""
    return {
        "num_inference_steps": inputs.job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        **_BY_MODE[inputs.job.mode](inputs),
    }


def _txt2img(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.size, "guidance_rescale": inputs.job.guidance_rescale or 0.0}


def _img2img(inputs: GenerationInputs) -> dict[str, Any]:
    # The pipeline takes no size: its output has the size of the image.
    return inputs.start


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.size, **inputs.start, **inputs.inpaint_mask}


def _controlnet(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.size, "image": single_or_list(inputs.controls), **inputs.control_weights()}


def _controlnet_img2img(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.size, **inputs.start, **_control(inputs)}


def _controlnet_inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.size, **inputs.start, **inputs.inpaint_mask, **_control(inputs)}


def _control(inputs: GenerationInputs) -> dict[str, Any]:
    return {"control_image": single_or_list(inputs.controls), **inputs.control_weights()}


def _prepare(pipeline: Any) -> None:
    """diffusers 0.42 looks for CLIP's last norm in `text_model` when layers are skipped; transformers 5 has none.

    `test_sd15_cannot_skip_layers_without_the_workaround` fails when that changes.
    """
    encoder = pipeline.text_encoder
    if not hasattr(encoder, "text_model"):
        object.__setattr__(encoder, "text_model", encoder)  # not as a module: it would contain itself


def _misfit(components: Mapping[str, Any]) -> str | None:
    unet, vae, encoder = (components[name].config for name in ("unet", "vae", "text_encoder"))
    latents = vae.latent_channels
    return first_difference(
        {
            "addition_embed_type of the UNet": (unet.addition_embed_type, None),
            "class_embed_type of the UNet": (unet.class_embed_type or unet.num_class_embeds, None),
            "cross_attention_dim of the UNet": (unet.cross_attention_dim, encoder.hidden_size),
            "out_channels of the UNet": (unet.out_channels, latents),
        }
    ) or (
        None
        if unet.in_channels in (latents, 2 * latents + 1)
        else f"in_channels of the UNet is {unet.in_channels}; {latents}, or {2 * latents + 1} to inpaint, are "
        "needed"
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
    id="sd15",
    pipelines={
        Mode.TXT2IMG: "StableDiffusionPipeline",
        Mode.IMG2IMG: "StableDiffusionImg2ImgPipeline",
        Mode.INPAINT: "StableDiffusionInpaintPipeline",
        Mode.CONTROLNET: "StableDiffusionControlNetPipeline",
        Mode.CONTROLNET_IMG2IMG: "StableDiffusionControlNetImg2ImgPipeline",
        Mode.CONTROLNET_INPAINT: "StableDiffusionControlNetInpaintPipeline",
    },
    controlnet="ControlNetModel",
    multi_controlnet="MultiControlNetModel",
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    repeated_blocks=("BasicTransformerBlock",),
    t5=None,
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=("clip_skip",),
        negative_option_fields=(),
        negative_prompt=negative_if_guided,
        results={"prompt_embeds": 0},
        constants={"num_images_per_prompt": 1, "do_classifier_free_guidance": False},
    ),
    arguments=arguments,
    prepare=_prepare,
    misfit=_misfit,
)
