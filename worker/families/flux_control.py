"""FLUX.1 Canny and Depth: FLUX.1 whose transformer is given the control image beside the noise.

Arguments are those of diffusers' `FluxControlPipeline` and its variants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families.flux_parts import PLAIN_ENCODING, flux_family, flux_misfit
from worker.families.inputs import GenerationInputs
from worker.families.packed_latents import PATCH


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Control pipeline."""
    job = inputs.job
    return {
        **inputs.size,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": job.max_sequence_length,
        # Once for each generator, as the image to start from.
        "control_image": [*inputs.controls] * job.num_images,
        **_BY_MODE[job.mode](inputs),
    }


def _txt2img(inputs: GenerationInputs) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _img2img(inputs: GenerationInputs) -> dict[str, Any]:
    return inputs.start


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **inputs.inpaint_mask}


def _misfit(components: Mapping[str, Any]) -> str | None:
    latents = PATCH * components["vae"].config.latent_channels
    # The transformer is given the noise, and the control image.
    return flux_misfit(components, {"in_channels": 2 * latents, "out_channels": latents})


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.IMG2IMG: _img2img,
    Mode.INPAINT: _inpaint,
}

FAMILY = flux_family(
    id="flux-control",
    pipelines={
        Mode.TXT2IMG: "FluxControlPipeline",
        Mode.IMG2IMG: "FluxControlImg2ImgPipeline",
        Mode.INPAINT: "FluxControlInpaintPipeline",
    },
    arguments=arguments,
    misfit=_misfit,
    encoding=PLAIN_ENCODING,
)
