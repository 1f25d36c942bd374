"""FLUX.1 Kontext: FLUX.1 whose transformer is given the latents of a reference image behind the noise.

Arguments are those of diffusers' `FluxKontextPipeline` and `FluxKontextInpaintPipeline`, without their choice of
sizes: the output's is the job's, and a reference has the size at which it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families.flux_parts import TRUE_CFG_ENCODING, flux_family, flux_misfit
from worker.families.inputs import GenerationInputs
from worker.families.packed_latents import PATCH


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Kontext pipeline."""
    job = inputs.job
    return {
        **inputs.size,
        # The pipelines scale width and height to this area; passing their own area keeps them.
        "max_area": job.width * job.height,
        "_auto_resize": False,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": job.max_sequence_length,
        "true_cfg_scale": job.true_cfg_scale or 1.0,
        **_BY_MODE[job.mode](inputs),
    }


def _txt2img(inputs: GenerationInputs) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **inputs.inpaint_mask}


def _edit(inputs: GenerationInputs) -> dict[str, Any]:
    return {"image": inputs.references[0]}


def _edit_inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**_inpaint(inputs), "image_reference": inputs.references[0]}


def _misfit(components: Mapping[str, Any]) -> str | None:
    return flux_misfit(components, {"in_channels": PATCH * components["vae"].config.latent_channels})


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.INPAINT: _inpaint,
    Mode.EDIT: _edit,
    Mode.EDIT_INPAINT: _edit_inpaint,
}

FAMILY = flux_family(
    id="flux-kontext",
    pipelines={
        Mode.TXT2IMG: "FluxKontextPipeline",
        Mode.INPAINT: "FluxKontextInpaintPipeline",
        Mode.EDIT: "FluxKontextPipeline",
        Mode.EDIT_INPAINT: "FluxKontextInpaintPipeline",
    },
    arguments=arguments,
    misfit=_misfit,
    encoding=TRUE_CFG_ENCODING,
)
