"""Stable Diffusion 3 and 3.5: a flow-matching transformer with two CLIP encoders and T5.

Arguments are those of diffusers' `StableDiffusion3Pipeline` and its variants, and of
`StableDiffusion3ControlNetPipeline` and its inpainting variant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.deterministic_vae import DeterministicVae
from worker.families.inputs import GenerationInputs, single_or_list
from worker.families.prompts import PromptEncoding, negative_if_guided


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of an SD3 pipeline."""
    job = inputs.job
    return {
        **inputs.size,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": job.max_sequence_length,
        **_BY_MODE[job.mode](inputs),
    }


def _txt2img(inputs: GenerationInputs) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _img2img(inputs: GenerationInputs) -> dict[str, Any]:
    return inputs.start


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **inputs.inpaint_mask}


def _controlnet(inputs: GenerationInputs) -> dict[str, Any]:
    return {"control_image": single_or_list(inputs.controls), **inputs.control_weights()}


def _controlnet_inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    # The ControlNet sees the masked image; the latents start from noise.
    return {"control_image": inputs.image, "control_mask": inputs.mask, **inputs.control_weights()}


def _patch(pipeline: Any) -> None:
    if "controlnet" in pipeline.components:
        pipeline.vae = DeterministicVae(pipeline.vae)


def _misfit(components: Mapping[str, Any]) -> str | None:
    transformer, vae = components["transformer"].config, components["vae"].config
    first, second = components["text_encoder"].config, components["text_encoder_2"].config
    pooled = first.projection_dim + second.projection_dim
    pairs = {
        "in_channels of the transformer": (transformer.in_channels, vae.latent_channels),
        "pooled_projection_dim of the transformer": (transformer.pooled_projection_dim, pooled),
    }
    t5 = components.get("text_encoder_3")
    if t5 is not None:
        pairs["joint_attention_dim of the transformer"] = (transformer.joint_attention_dim, t5.config.d_model)
    return first_difference(pairs)


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.IMG2IMG: _img2img,
    Mode.INPAINT: _inpaint,
    Mode.CONTROLNET: _controlnet,
    Mode.CONTROLNET_INPAINT: _controlnet_inpaint,
}

FAMILY = DiffusersFamily(
    id="sd3",
    pipelines={
        Mode.TXT2IMG: "StableDiffusion3Pipeline",
        Mode.IMG2IMG: "StableDiffusion3Img2ImgPipeline",
        Mode.INPAINT: "StableDiffusion3InpaintPipeline",
        Mode.CONTROLNET: "StableDiffusion3ControlNetPipeline",
        Mode.CONTROLNET_INPAINT: "StableDiffusion3ControlNetInpaintingPipeline",
    },
    controlnet="SD3ControlNetModel",
    multi_controlnet="SD3MultiControlNetModel",
    denoiser="transformer",
    denoiser_class="SD3Transformer2DModel",
    repeated_blocks=("JointTransformerBlock",),
    t5="text_encoder_3",
    encoding=PromptEncoding(
        prompt_fields=("prompt", "prompt_2", "prompt_3"),
        option_fields=("clip_skip", "max_sequence_length"),
        negative_option_fields=("max_sequence_length",),
        negative_prompt=negative_if_guided,
        results={"prompt_embeds": 0, "pooled_prompt_embeds": 2},
        constants={"do_classifier_free_guidance": False},
    ),
    arguments=arguments,
    misfit=_misfit,
    patch=_patch,
)
