"""Lumina-Image 2.0: a transformer that reads Gemma 2's sequence and the image as one. Text to image only.

Arguments are those of diffusers' `Lumina2Pipeline` (`diffusers.pipelines.lumina2`). The pipeline puts an
instruction before a prompt, and none before a negative one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, transformer_misfit
from worker.families.inputs import GenerationInputs
from worker.families.prompts import PromptEncoding, negative_if_guided


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of the pipeline."""
    return {
        **inputs.size,
        "num_inference_steps": inputs.job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": inputs.job.max_sequence_length,
    }


def _encode_negative(pipeline: Any, given: Mapping[str, Any]) -> Sequence[Any]:
    """As `encode_prompt` does it, which would encode a prompt as well."""
    read = pipeline._get_gemma_prompt_embeds(
        prompt=given["prompt"], device=given["device"], max_sequence_length=given["max_sequence_length"]
    )
    return cast("Sequence[Any]", read)


FAMILY = DiffusersFamily(
    id="lumina2",
    pipelines={Mode.TXT2IMG: "Lumina2Pipeline"},
    controlnet="",
    multi_controlnet="",
    denoiser="transformer",
    denoiser_class="Lumina2Transformer2DModel",
    repeated_blocks=("Lumina2TransformerBlock",),
    t5=None,
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=("max_sequence_length",),
        negative_option_fields=("max_sequence_length",),
        negative_prompt=negative_if_guided,
        results={"prompt_embeds": 0, "prompt_attention_mask": 1},
        constants={"do_classifier_free_guidance": False},
        encode_negative=_encode_negative,
    ),
    arguments=arguments,
    misfit=partial(transformer_misfit, text="cap_feat_dim"),
    guides_in_two_calls=True,
)
