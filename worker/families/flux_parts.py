"""What all FLUX.1 checkpoints share: classes, encoders, packed latents. Not a family: four are made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs
from worker.families.packed_latents import unpack_latents
from worker.families.prompts import PromptEncoding


def flux_family(
    id: str,
    pipelines: Mapping[Mode, str],
    arguments: Callable[[GenerationInputs], dict[str, Any]],
    misfit: Callable[[Mapping[str, Any]], str | None],
    encoding: PromptEncoding,
    **more: Any,
) -> DiffusersFamily:
    """Return a family of FLUX.1's architecture; `more` are further fields of it."""
    return DiffusersFamily(
        id=id,
        pipelines=pipelines,
        controlnet="FluxControlNetModel",
        multi_controlnet="FluxMultiControlNetModel",
        denoiser="transformer",
        denoiser_class="FluxTransformer2DModel",
        repeated_blocks=("FluxTransformerBlock", "FluxSingleTransformerBlock"),
        t5="text_encoder_2",
        encoding=encoding,
        arguments=arguments,
        misfit=misfit,
        unpack_latents=unpack_latents,
        guides_in_two_calls=True,
        **more,
    )


def _true_cfg_negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:
    """Pass an empty negative prompt if there is none: without one, the pipelines ignore `true_cfg_scale`."""
    del config
    if (inputs.job.true_cfg_scale or 1.0) <= 1:
        return None
    return inputs.negative_prompt


def _no_negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:  # noqa: ARG001
    return None


#: Of the pipelines that take a negative prompt, and of those that have no such argument.
TRUE_CFG_ENCODING = PromptEncoding(
    prompt_fields=("prompt", "prompt_2"),
    option_fields=("max_sequence_length",),
    negative_option_fields=("max_sequence_length",),
    negative_prompt=_true_cfg_negative_prompt,
    results={"prompt_embeds": 0, "pooled_prompt_embeds": 1},
    constants={},
)
PLAIN_ENCODING = PromptEncoding(
    prompt_fields=("prompt", "prompt_2"),
    option_fields=("max_sequence_length",),
    negative_option_fields=(),
    negative_prompt=_no_negative_prompt,
    results={"prompt_embeds": 0, "pooled_prompt_embeds": 1},
    constants={},
)


def flux_misfit(components: Mapping[str, Any], latent_channels: Mapping[str, int]) -> str | None:
    """Return why a checkpoint's components do not fit together; None: they do.

    Args:
        latent_channels: field of the transformer's configuration, such as `in_channels` -> what it must be.
    """
    transformer = components["transformer"].config
    widths = {
        "pooled_projection_dim": ("text_encoder", "hidden_size"),
        "joint_attention_dim": ("text_encoder_2", "d_model"),
    }
    encoders = {
        field: (getattr(transformer, field), getattr(components[encoder].config, width))
        for field, (encoder, width) in widths.items()
        if components.get(encoder) is not None
    }
    channels = {field: (getattr(transformer, field), needed) for field, needed in latent_channels.items()}
    pairs = {**channels, **encoders}
    return first_difference({f"{field} of the transformer": pair for field, pair in pairs.items()})
