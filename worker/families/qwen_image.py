"""Qwen-Image: a transformer with two streams; Qwen2.5-VL reads the prompt, and the VAE is one of videos.

Arguments are those of diffusers' `QwenImagePipeline` and its variants (`diffusers.pipelines.qwenimage`). Guidance
is `true_cfg_scale`, with a pass of its own for the negative prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contracts.catalogue.families import Mode
from worker.families.deterministic_vae import DeterministicVae
from worker.families.inputs import GenerationInputs
from worker.families.qwen_parts import guidance, qwen_family, text_encoding


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Qwen-Image pipeline."""
    job = inputs.job
    return {
        **inputs.size,
        "num_inference_steps": job.num_inference_steps,
        **guidance(inputs),
        "max_sequence_length": job.max_sequence_length,
        **_BY_MODE[job.mode](inputs),
    }


def _txt2img(inputs: GenerationInputs) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _img2img(inputs: GenerationInputs) -> dict[str, Any]:
    return inputs.start


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **inputs.inpaint_mask}


def _controlnet(inputs: GenerationInputs) -> dict[str, Any]:
    return {"control_image": inputs.controls[0], **inputs.control_weights()}


def _controlnet_inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    # The ControlNet sees the masked image; the latents start from noise.
    return {"control_image": inputs.image, "control_mask": inputs.mask, **inputs.control_weights()}


def _patch(pipeline: Any) -> None:
    if type(pipeline).__name__ == "QwenImageControlNetInpaintPipeline":
        pipeline.vae = DeterministicVae(pipeline.vae)


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.IMG2IMG: _img2img,
    Mode.INPAINT: _inpaint,
    Mode.CONTROLNET: _controlnet,
    Mode.CONTROLNET_INPAINT: _controlnet_inpaint,
}

FAMILY = qwen_family(
    id="qwen-image",
    pipelines={
        Mode.TXT2IMG: "QwenImagePipeline",
        Mode.IMG2IMG: "QwenImageImg2ImgPipeline",
        Mode.INPAINT: "QwenImageInpaintPipeline",
        Mode.CONTROLNET: "QwenImageControlNetPipeline",
        Mode.CONTROLNET_INPAINT: "QwenImageControlNetInpaintPipeline",
    },
    controlnet="QwenImageControlNetModel",
    encoding=text_encoding(),
    arguments=arguments,
    patch=_patch,
)
