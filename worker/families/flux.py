"""FLUX.1 dev and schnell: CLIP for a pooled prompt and T5, a transformer on a rectified flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import Call, Encoding, FamilyCode, one_or_all


def arguments(call: Call) -> dict[str, Any]:
    """Arguments of a FLUX pipeline."""
    job = call.job
    return {
        **call.size,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": call.guidance_scale,
        "max_sequence_length": job.max_sequence_length,
        **_BY_MODE[job.mode](call),
    }


def _txt2img(call: Call) -> dict[str, Any]:
    return _true_cfg(call)


def _img2img(call: Call) -> dict[str, Any]:
    return {**call.start, **_true_cfg(call)}


def _inpaint(call: Call) -> dict[str, Any]:
    return {**call.start, **call.repaint, **_true_cfg(call)}


def _controlnet(call: Call) -> dict[str, Any]:
    return {**_control(call), **_true_cfg(call)}


def _controlnet_img2img(call: Call) -> dict[str, Any]:
    return {**call.start, **_control(call)}


def _controlnet_inpaint(call: Call) -> dict[str, Any]:
    return {**call.start, **call.repaint, **_control(call)}


def _true_cfg(call: Call) -> dict[str, Any]:
    return {"true_cfg_scale": call.job.true_cfg_scale or 1.0}


def _negatives(call: Call, settings: Mapping[str, Any]) -> Sequence[str] | None:
    """Guidance away from a negative prompt; the pipelines would forget the scale where there is none."""
    del settings
    if (call.job.true_cfg_scale or 1.0) <= 1:
        return None
    return call.texts.get("negative_prompt", [""] * len(call.texts["prompt"]))


def _control(call: Call) -> dict[str, Any]:
    # Several ControlNets without a list of modes would be dropped without a word.
    mode = None if len(call.controls) == 1 else [None] * len(call.controls)
    return {"control_image": one_or_all(call.controls), "control_mode": mode, **call.control_weights()}


def _unpack(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:
    width, height = size
    return pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)


_BY_MODE: dict[Mode, Callable[[Call], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.IMG2IMG: _img2img,
    Mode.INPAINT: _inpaint,
    Mode.CONTROLNET: _controlnet,
    Mode.CONTROLNET_IMG2IMG: _controlnet_img2img,
    Mode.CONTROLNET_INPAINT: _controlnet_inpaint,
}

FAMILY = FamilyCode(
    id="flux",
    pipelines={
        Mode.TXT2IMG: "FluxPipeline",
        Mode.IMG2IMG: "FluxImg2ImgPipeline",
        Mode.INPAINT: "FluxInpaintPipeline",
        Mode.CONTROLNET: "FluxControlNetPipeline",
        Mode.CONTROLNET_IMG2IMG: "FluxControlNetImg2ImgPipeline",
        Mode.CONTROLNET_INPAINT: "FluxControlNetInpaintPipeline",
    },
    controlnet="FluxControlNetModel",
    multi_controlnet="FluxMultiControlNetModel",
    denoiser="transformer",
    denoiser_class="FluxTransformer2DModel",
    repeated=("FluxTransformerBlock", "FluxSingleTransformerBlock"),
    t5="text_encoder_2",
    encoding=Encoding(
        texts=("prompt", "prompt_2"),
        options=("max_sequence_length",),
        negative_options=("max_sequence_length",),
        negatives=_negatives,
        places=(0, 1),
        fixed={},
    ),
    arguments=arguments,
    unpack=_unpack,
)
