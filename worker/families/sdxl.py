"""SDXL: two CLIP encoders, a UNet, size conditioning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import Call, Encoding, FamilyCode, one_or_all


def arguments(call: Call) -> dict[str, Any]:
    """Arguments of an SDXL pipeline."""
    job = call.job
    return {
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": call.guidance_scale,
        "original_size": job.original_size or (job.height, job.width),
        "crops_coords_top_left": job.crops_coords_top_left or (0, 0),
        "target_size": job.target_size or (job.height, job.width),
        **_BY_MODE[job.mode](call),
    }


def _txt2img(call: Call) -> dict[str, Any]:
    return {**call.size, **_rescale(call)}


def _img2img(call: Call) -> dict[str, Any]:
    # It takes no size: the result is as large as the image.
    return {**call.start, **_rescale(call)}


def _inpaint(call: Call) -> dict[str, Any]:
    return {**call.size, **call.start, **call.repaint, **_rescale(call)}


def _controlnet(call: Call) -> dict[str, Any]:
    return {**call.size, "image": one_or_all(call.controls), **call.control_weights()}


def _controlnet_img2img(call: Call) -> dict[str, Any]:
    return {**call.size, **call.start, **_control(call)}


def _controlnet_inpaint(call: Call) -> dict[str, Any]:
    return {**call.size, **call.start, **call.repaint, **_control(call), **_rescale(call)}


def _control(call: Call) -> dict[str, Any]:
    return {"control_image": one_or_all(call.controls), **call.control_weights()}


def _rescale(call: Call) -> dict[str, Any]:
    return {"guidance_rescale": call.job.guidance_rescale or 0.0}


def _negatives(call: Call, settings: Mapping[str, Any]) -> Sequence[str] | None:
    """Without a negative prompt the base model was trained on zeros, which the pipeline makes itself."""
    if call.guidance_scale <= 1 or (
        "negative_prompt" not in call.texts and settings["force_zeros_for_empty_prompt"]
    ):
        return None
    return call.texts.get("negative_prompt", [""] * len(call.texts["prompt"]))


_BY_MODE: dict[Mode, Callable[[Call], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.IMG2IMG: _img2img,
    Mode.INPAINT: _inpaint,
    Mode.CONTROLNET: _controlnet,
    Mode.CONTROLNET_IMG2IMG: _controlnet_img2img,
    Mode.CONTROLNET_INPAINT: _controlnet_inpaint,
}

FAMILY = FamilyCode(
    id="sdxl",
    pipelines={
        Mode.TXT2IMG: "StableDiffusionXLPipeline",
        Mode.IMG2IMG: "StableDiffusionXLImg2ImgPipeline",
        Mode.INPAINT: "StableDiffusionXLInpaintPipeline",
        Mode.CONTROLNET: "StableDiffusionXLControlNetPipeline",
        Mode.CONTROLNET_IMG2IMG: "StableDiffusionXLControlNetImg2ImgPipeline",
        Mode.CONTROLNET_INPAINT: "StableDiffusionXLControlNetInpaintPipeline",
    },
    controlnet="ControlNetModel",
    multi_controlnet="MultiControlNetModel",
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    repeated=("BasicTransformerBlock",),
    t5=None,
    encoding=Encoding(
        texts=("prompt", "prompt_2"),
        options=("clip_skip",),
        negative_options=(),
        negatives=_negatives,
        places=(0, 2),
        fixed={"do_classifier_free_guidance": False},
    ),
    arguments=arguments,
)
