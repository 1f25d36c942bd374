"""AuraFlow: a transformer of joint and single blocks behind a T5 of the kind of UMT5. Text to image only.

Arguments are those of diffusers' `AuraFlowPipeline` (`diffusers.pipelines.aura_flow`).
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
    return {
        **inputs.size,
        "num_inference_steps": inputs.job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": inputs.job.max_sequence_length,
    }


FAMILY = DiffusersFamily(
    id="auraflow",
    pipelines={Mode.TXT2IMG: "AuraFlowPipeline"},
    controlnet="",
    multi_controlnet="",
    denoiser="transformer",
    denoiser_class="AuraFlowTransformer2DModel",
    repeated_blocks=("AuraFlowJointTransformerBlock", "AuraFlowSingleTransformerBlock"),
    t5=None,
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=("max_sequence_length",),
        negative_option_fields=("max_sequence_length",),
        negative_prompt=negative_if_guided,
        results={"prompt_embeds": 0, "prompt_attention_mask": 1},
        constants={"do_classifier_free_guidance": False},
    ),
    arguments=arguments,
    misfit=partial(transformer_misfit, text="joint_attention_dim"),
)
