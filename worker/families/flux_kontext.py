"""FLUX.1 Kontext: FLUX.1 whose transformer is given the latents of a reference image behind the noise.

Arguments are those of diffusers' `FluxKontextPipeline` and `FluxKontextInpaintPipeline`, without their choice of
sizes: the output's is the job's, and a reference has the size at which it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, GenerationInputs, PromptEncoding, first_difference


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Kontext pipeline."""
    job = inputs.job
    return {
        **inputs.size,
        # The pipelines scale width and height to this area; passing their own area keeps them.
        "max_area": job.width * job.height,
        "_auto_resize": False,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": job.max_sequence_length,
        "true_cfg_scale": job.true_cfg_scale or 1.0,
        **_BY_MODE[job.mode](inputs),
    }


def _txt2img(inputs: GenerationInputs) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **inputs.inpaint_mask}


def _edit(inputs: GenerationInputs) -> dict[str, Any]:
    return {"image": inputs.references[0]}


def _edit_inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**_inpaint(inputs), "image_reference": inputs.references[0]}


def _negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:
    """Pass an empty negative prompt if there is none: without one, the pipelines ignore `true_cfg_scale`."""
    del config
    if (inputs.job.true_cfg_scale or 1.0) <= 1:
        return None
    return inputs.negative_prompt


def _unpack_latents(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:
    width, height = size
    return pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)


def _misfit(components: Mapping[str, Any]) -> str | None:
    transformer, vae = components["transformer"].config, components["vae"].config
    widths = {
        "pooled_projection_dim": ("text_encoder", "hidden_size", transformer.pooled_projection_dim),
        "joint_attention_dim": ("text_encoder_2", "d_model", transformer.joint_attention_dim),
    }
    pairs = {
        f"{name} of the transformer": (found, getattr(components[encoder].config, width))
        for name, (encoder, width, found) in widths.items()
        if components.get(encoder) is not None
    }
    channels = (transformer.in_channels, 4 * vae.latent_channels)
    return first_difference({"in_channels of the transformer": channels, **pairs})


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.INPAINT: _inpaint,
    Mode.EDIT: _edit,
    Mode.EDIT_INPAINT: _edit_inpaint,
}

FAMILY = DiffusersFamily(
    id="flux-kontext",
    pipelines={
        Mode.TXT2IMG: "FluxKontextPipeline",
        Mode.INPAINT: "FluxKontextInpaintPipeline",
        Mode.EDIT: "FluxKontextPipeline",
        Mode.EDIT_INPAINT: "FluxKontextInpaintPipeline",
    },
    controlnet="FluxControlNetModel",
    multi_controlnet="FluxMultiControlNetModel",
    denoiser="transformer",
    denoiser_class="FluxTransformer2DModel",
    repeated_blocks=("FluxTransformerBlock", "FluxSingleTransformerBlock"),
    t5="text_encoder_2",
    encoding=PromptEncoding(
        prompt_fields=("prompt", "prompt_2"),
        option_fields=("max_sequence_length",),
        negative_option_fields=("max_sequence_length",),
        negative_prompt=_negative_prompt,
        results={"prompt_embeds": 0, "pooled_prompt_embeds": 1},
        constants={},
    ),
    arguments=arguments,
    misfit=_misfit,
    unpack_latents=_unpack_latents,
)
