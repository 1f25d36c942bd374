"""What Sana and Sana-Sprint share: classes, how Gemma 2 reads a prompt. Not a family."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs
from worker.families.prompts import PromptEncoding

#: Cleaning depends on which packages are installed.
_AS_IT_IS = {"clean_caption": False}


def sana_family(
    id: str,
    pipelines: Mapping[Mode, str],
    arguments: Callable[[GenerationInputs], dict[str, Any]],
    encoding: PromptEncoding,
    *,
    embeds_guidance: bool,
    **more: Any,
) -> DiffusersFamily:
    """Return a family of Sana's architecture.

    Args:
        embeds_guidance: whether guidance is an input of the transformer.
        more: further fields of the family.
    """
    return DiffusersFamily(
        id=id,
        pipelines=pipelines,
        multi_controlnet="",
        denoiser="transformer",
        denoiser_class="SanaTransformer2DModel",
        repeated_blocks=("SanaTransformerBlock",),
        t5=None,
        encoding=encoding,
        arguments=arguments,
        misfit=partial(_misfit, embeds_guidance=embeds_guidance),
        **more,
    )


def common_arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments that all pipelines of Sana take."""
    job = inputs.job
    return {
        **inputs.size,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": job.max_sequence_length,
        # It would generate at another size than asked for, and scale the result.
        "use_resolution_binning": False,
        **_AS_IT_IS,
    }


def sana_encoding(
    negative_prompt: Callable[[GenerationInputs, Mapping[str, Any]], str | None], constants: Mapping[str, Any]
) -> PromptEncoding:
    """Return how Gemma 2 reads a prompt, behind an instruction, and a negative one, without."""
    return PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=("max_sequence_length",),
        negative_option_fields=("max_sequence_length",),
        negative_prompt=negative_prompt,
        results={"prompt_embeds": 0, "prompt_attention_mask": 1},
        constants={**constants, **_AS_IT_IS},
        encode_prompt=_encode,
        encode_negative=_encode_negative,
    )


def _encode(pipeline: Any, given: Mapping[str, Any]) -> Sequence[Any]:
    """With the instruction that the pipeline's call has by default, and `encode_prompt` lacks."""
    instruction = inspect.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
    read = pipeline.encode_prompt(**given, complex_human_instruction=instruction)
    return cast("Sequence[Any]", read)


def _encode_negative(pipeline: Any, given: Mapping[str, Any]) -> Sequence[Any]:
    """As `encode_prompt` does it, which would encode a prompt as well."""
    read = pipeline._get_gemma_prompt_embeds(
        prompt=given["prompt"],
        device=given["device"],
        dtype=pipeline.text_encoder.dtype,
        max_sequence_length=given["max_sequence_length"],
        **_AS_IT_IS,
    )
    return cast("Sequence[Any]", read)


def _misfit(components: Mapping[str, Any], *, embeds_guidance: bool) -> str | None:
    transformer, vae = components["transformer"].config, components["vae"].config
    pairs: dict[str, tuple[Any, Any]] = {
        "in_channels of the transformer": (transformer.in_channels, vae.latent_channels),
        "patch_size of the transformer": (transformer.patch_size, 1),
        "guidance_embeds of the transformer": (bool(transformer.guidance_embeds), embeds_guidance),
    }
    if components.get("text_encoder") is not None:
        width = components["text_encoder"].config.hidden_size
        pairs["caption_channels of the transformer"] = (transformer.caption_channels, width)
    return first_difference(pairs)
