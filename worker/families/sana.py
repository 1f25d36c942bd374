"""Sana: a transformer with linear attention on the latents of a VAE of stride 32; Gemma 2 reads the prompt.

Arguments are those of diffusers' `SanaPipeline` and `SanaControlNetPipeline` (`diffusers.pipelines.sana`).
"""

from __future__ import annotations

from typing import Any

from contracts.catalogue.families import Mode
from worker.families.inputs import GenerationInputs
from worker.families.prompts import negative_if_guided
from worker.families.sana_parts import common_arguments, sana_encoding, sana_family


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Sana pipeline."""
    given = {**common_arguments(inputs), "negative_prompt": None}  # an empty one contradicts the embeddings
    if inputs.job.mode is Mode.CONTROLNET:
        given["control_image"] = inputs.controls[0]
        given["controlnet_conditioning_scale"] = inputs.job.controls[0].conditioning_scale
    return given


FAMILY = sana_family(
    id="sana",
    pipelines={Mode.TXT2IMG: "SanaPipeline", Mode.CONTROLNET: "SanaControlNetPipeline"},
    arguments=arguments,
    encoding=sana_encoding(negative_if_guided, {"do_classifier_free_guidance": False}),
    embeds_guidance=False,
    controlnet="SanaControlNetModel",
)
