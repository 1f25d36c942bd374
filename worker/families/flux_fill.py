"""FLUX.1 Fill: FLUX.1 whose transformer is given the masked image and the mask beside the noise.

Arguments are those of diffusers' `FluxFillPipeline`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families.flux_parts import PLAIN_ENCODING, flux_family, flux_misfit
from worker.families.inputs import GenerationInputs
from worker.families.packed_latents import PATCH


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


def _misfit(components: Mapping[str, Any]) -> str | None:
    vae = components["vae"].config
    latents, stride = PATCH * vae.latent_channels, 2 ** (len(vae.block_out_channels) - 1)
    # The transformer is given the noise, the masked image, and a channel for each pixel of the mask.
    return flux_misfit(components, {"in_channels": 2 * latents + PATCH * stride**2, "out_channels": latents})


FAMILY = flux_family(
    id="flux-fill",
    pipelines={Mode.INPAINT: "FluxFillPipeline"},
    arguments=arguments,
    misfit=_misfit,
    encoding=PLAIN_ENCODING,
)
