"""FLUX.1 dev and schnell: a flow-matching transformer; CLIP gives the pooled embedding, T5 the sequence.

Arguments are those of diffusers' `FluxPipeline` and its variants (`diffusers.pipelines.flux`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families.flux_parts import TRUE_CFG_ENCODING, flux_family, flux_misfit
from worker.families.inputs import GenerationInputs, single_or_list
from worker.families.packed_latents import PATCH
from worker.runtime.async_copies import with_asynchronous_tensors


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a FLUX pipeline."""
    job = inputs.job
    return {
        **inputs.size,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": job.max_sequence_length,
        **_BY_MODE[job.mode](inputs),
    }


def _txt2img(inputs: GenerationInputs) -> dict[str, Any]:
    return _true_cfg(inputs)


def _img2img(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **_true_cfg(inputs)}


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **inputs.inpaint_mask, **_true_cfg(inputs)}


def _controlnet(inputs: GenerationInputs) -> dict[str, Any]:
    return {**_control(inputs), **_true_cfg(inputs)}


def _controlnet_img2img(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **_control(inputs)}


def _controlnet_inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **inputs.inpaint_mask, **_control(inputs)}


def _true_cfg(inputs: GenerationInputs) -> dict[str, Any]:
    return {"true_cfg_scale": inputs.job.true_cfg_scale or 1.0}


def _control(inputs: GenerationInputs) -> dict[str, Any]:
    # diffusers 0.42's img2img and inpaint pipelines ignore several ControlNets if they get no list of modes.
    mode = single_or_list([control.mode for control in inputs.job.controls])
    return {"control_image": single_or_list(inputs.controls), "control_mode": mode, **inputs.control_weights()}


def _patch(pipeline: Any) -> None:
    """Let no step of the ControlNet pipelines wait for the device; see `with_asynchronous_tensors`."""
    if "controlnet" in pipeline.components:
        pipeline_class: Any = type(pipeline)
        pipeline.__class__ = with_asynchronous_tensors(pipeline_class)


def _misfit(components: Mapping[str, Any]) -> str | None:
    return flux_misfit(components, {"in_channels": PATCH * components["vae"].config.latent_channels})


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.IMG2IMG: _img2img,
    Mode.INPAINT: _inpaint,
    Mode.CONTROLNET: _controlnet,
    Mode.CONTROLNET_IMG2IMG: _controlnet_img2img,
    Mode.CONTROLNET_INPAINT: _controlnet_inpaint,
}

FAMILY = flux_family(
    id="flux",
    pipelines={
        Mode.TXT2IMG: "FluxPipeline",
        Mode.IMG2IMG: "FluxImg2ImgPipeline",
        Mode.INPAINT: "FluxInpaintPipeline",
        Mode.CONTROLNET: "FluxControlNetPipeline",
        Mode.CONTROLNET_IMG2IMG: "FluxControlNetImg2ImgPipeline",
        Mode.CONTROLNET_INPAINT: "FluxControlNetInpaintPipeline",
    },
    arguments=arguments,
    misfit=_misfit,
    encoding=TRUE_CFG_ENCODING,
    patch=_patch,
)
