"""Ovis-Image: a transformer like FLUX.1's behind Qwen3, which reads a prompt after an instruction.

Arguments are those of diffusers' `OvisImagePipeline` (`diffusers.pipelines.ovis_image`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, transformer_misfit
from worker.families.inputs import GenerationInputs
from worker.families.packed_latents import PATCH, unpack_latents
from worker.families.prompts import PromptEncoding, negative_if_guided


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of the pipeline."""
    return {
        **inputs.size,
        "negative_prompt": None,  # its default, an empty one, contradicts the embeddings
        "num_inference_steps": inputs.job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": inputs.job.max_sequence_length,
    }


FAMILY = DiffusersFamily(
    id="ovis-image",
    pipelines={Mode.TXT2IMG: "OvisImagePipeline"},
    controlnet="",
    multi_controlnet="",
    denoiser="transformer",
    denoiser_class="OvisImageTransformer2DModel",
    repeated_blocks=("OvisImageTransformerBlock", "OvisImageSingleTransformerBlock"),
    t5=None,
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=("max_sequence_length",),
        negative_option_fields=("max_sequence_length",),
        negative_prompt=negative_if_guided,
        results={"prompt_embeds": 0},
        constants={"do_classifier_free_guidance": False},
    ),
    arguments=arguments,
    misfit=partial(transformer_misfit, text="joint_attention_dim", patch=PATCH),
    guides_in_two_calls=True,
    unpack_latents=unpack_latents,
)
