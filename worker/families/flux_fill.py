"""FLUX.1 Fill: FLUX.1 whose transformer is given the masked image and the mask beside the noise.

Arguments are those of diffusers' `FluxFillPipeline`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, GenerationInputs, PromptEncoding, first_difference


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of the Fill pipeline."""
    job = inputs.job
    return {
        **inputs.size,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": job.max_sequence_length,
        **inputs.start,
        **inputs.inpaint_mask,
    }


def _no_negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:  # noqa: ARG001
    """The pipeline has no such argument."""
    return None


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
    patch, stride = 4, 2 ** (len(vae.block_out_channels) - 1)
    # Noise, the masked image, and a channel for each pixel of the mask.
    channels = patch * (2 * vae.latent_channels + stride**2)
    return first_difference(
        {
            "in_channels of the transformer": (transformer.in_channels, channels),
            "out_channels of the transformer": (transformer.out_channels, patch * vae.latent_channels),
            **pairs,
        }
    )


FAMILY = DiffusersFamily(
    id="flux-fill",
    pipelines={Mode.INPAINT: "FluxFillPipeline"},
    controlnet="FluxControlNetModel",
    multi_controlnet="FluxMultiControlNetModel",
    denoiser="transformer",
    denoiser_class="FluxTransformer2DModel",
    repeated_blocks=("FluxTransformerBlock", "FluxSingleTransformerBlock"),
    t5="text_encoder_2",
    encoding=PromptEncoding(
        prompt_fields=("prompt", "prompt_2"),
        option_fields=("max_sequence_length",),
        negative_option_fields=(),
        negative_prompt=_no_negative_prompt,
        results={"prompt_embeds": 0, "pooled_prompt_embeds": 1},
        constants={},
    ),
    arguments=arguments,
    misfit=_misfit,
    unpack_latents=_unpack_latents,
)
