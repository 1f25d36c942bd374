"""CogView4: a transformer that reads GLM-4's sequence and the image as one. Text to image only.

Arguments are those of diffusers' `CogView4Pipeline` (`diffusers.pipelines.cogview4`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, transformer_misfit
from worker.families.inputs import GenerationInputs
from worker.families.prompts import PromptEncoding, negative_if_guided


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of the pipeline."""
    job = inputs.job
    return {
        **inputs.size,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "original_size": job.original_size or (job.height, job.width),
        "crops_coords_top_left": job.crops_coords_top_left or (0, 0),
        "max_sequence_length": job.max_sequence_length,
    }


FAMILY = DiffusersFamily(
    id="cogview4",
    pipelines={Mode.TXT2IMG: "CogView4Pipeline"},
    controlnet="",
    multi_controlnet="",
    denoiser="transformer",
    denoiser_class="CogView4Transformer2DModel",
    repeated_blocks=("CogView4TransformerBlock",),
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
    misfit=partial(transformer_misfit, text="text_embed_dim"),
    guides_in_two_calls=True,
)
