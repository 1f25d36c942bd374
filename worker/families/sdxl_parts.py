"""What Stable Diffusion XL, its refiner and Kolors share: arguments, and when there is a negative prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.families.inputs import GenerationInputs


def usual_arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of every call: steps, guidance, and the sizes that the UNet is told."""
    job = inputs.job
    return {
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "original_size": job.original_size or (job.height, job.width),
        "crops_coords_top_left": job.crops_coords_top_left or (0, 0),
        "target_size": job.target_size or (job.height, job.width),
    }


def rescale(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the argument for rescaled guidance."""
    return {"guidance_rescale": inputs.job.guidance_rescale or 0.0}


def negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:
    """Pass none if the model was trained with zeros for an absent negative prompt: the pipeline makes them."""
    if inputs.guidance_scale <= 1 or (
        inputs.job.negative_prompt is None and config["force_zeros_for_empty_prompt"]
    ):
        return None
    return inputs.negative_prompt
