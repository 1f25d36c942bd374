"""What FLUX.2 dev and klein share: classes, packed latents, language models without heads. Not a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs
from worker.families.packed_latents import PATCH
from worker.families.prompts import PromptEncoding

#: Layers of the text encoder whose outputs are the prompt's embedding, side by side.
_TEXT_LAYERS = 3


def flux2_family(
    id: str,
    pipelines: Mapping[Mode, str],
    arguments: Callable[[GenerationInputs], dict[str, Any]],
    negative_prompt: Callable[[GenerationInputs, Mapping[str, Any]], str | None],
    **more: Any,
) -> DiffusersFamily:
    """Return a family of FLUX.2's architecture; `more` are further fields of it."""
    return DiffusersFamily(
        id=id,
        pipelines=pipelines,
        controlnet="",
        multi_controlnet="",
        denoiser="transformer",
        denoiser_class="Flux2Transformer2DModel",
        repeated_blocks=("Flux2TransformerBlock", "Flux2SingleTransformerBlock"),
        t5=None,
        encoding=PromptEncoding(
            prompt_fields=("prompt",),
            option_fields=("max_sequence_length",),
            negative_option_fields=("max_sequence_length",),
            negative_prompt=negative_prompt,
            results={"prompt_embeds": 0},
            constants={},
        ),
        arguments=arguments,
        misfit=_misfit,
        prepare=_without_head,
        unpack_latents=_unpack_latents,
        **more,
    )


def common_arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments that all pipelines of FLUX.2 take."""
    job = inputs.job
    return {
        **inputs.size,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": job.max_sequence_length,
    }


def _without_head(pipeline: Any) -> None:
    """Take the language model's head away: the pipelines use hidden states, and it would guess words."""
    if pipeline.text_encoder is not None:
        pipeline.text_encoder.lm_head = torch.nn.Identity()


def _unpack_latents(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:
    width, height = (side // (2 * pipeline.vae_scale_factor) for side in size)
    patches = latents.transpose(1, 2).unflatten(2, (height, width))
    norm, epsilon = pipeline.vae.bn, pipeline.vae.config.batch_norm_eps
    mean, variance = (value.view(1, -1, 1, 1).to(patches) for value in (norm.running_mean, norm.running_var))
    return pipeline._unpatchify_latents(patches * torch.sqrt(variance + epsilon) + mean)


def _misfit(components: Mapping[str, Any]) -> str | None:
    transformer, vae = components["transformer"].config, components["vae"].config
    pairs: dict[str, tuple[Any, Any]] = {
        "in_channels of the transformer": (transformer.in_channels, PATCH * vae.latent_channels),
    }
    if components.get("text_encoder") is not None:
        config = components["text_encoder"].config
        width = _TEXT_LAYERS * getattr(config, "text_config", config).hidden_size
        pairs["joint_attention_dim of the transformer"] = (transformer.joint_attention_dim, width)
    return first_difference(pairs)
