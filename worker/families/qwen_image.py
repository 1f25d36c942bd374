"""Qwen-Image: a transformer with two streams; Qwen2.5-VL reads the prompt, and the VAE is one of videos.

Arguments are those of diffusers' `QwenImagePipeline` and its variants (`diffusers.pipelines.qwenimage`). Guidance
is `true_cfg_scale`, with a pass of its own for the negative prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, GenerationInputs, PromptEncoding, first_difference
from worker.families.deterministic_vae import DeterministicVae

#: Latents of 2 × 2 positions are one token of the transformer.
_PATCH = 4


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Qwen-Image pipeline."""
    job = inputs.job
    return {
        **inputs.size,
        "num_inference_steps": job.num_inference_steps,
        "true_cfg_scale": _scale(inputs),
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


def _scale(inputs: GenerationInputs) -> float:
    return inputs.job.true_cfg_scale or 1.0


def _negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:
    """Pass an empty negative prompt if there is none: without one, the pipelines ignore `true_cfg_scale`."""
    del config
    return None if _scale(inputs) <= 1 else inputs.negative_prompt


def _patch(pipeline: Any) -> None:
    if type(pipeline).__name__ == "QwenImageControlNetInpaintPipeline":
        pipeline.vae = DeterministicVae(pipeline.vae)


def _unpack_latents(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:
    width, height = size
    return pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)[:, :, 0]


def _misfit(components: Mapping[str, Any]) -> str | None:
    transformer, vae = components["transformer"].config, components["vae"].config
    pairs: dict[str, tuple[Any, Any]] = {
        "in_channels of the transformer": (transformer.in_channels, _PATCH * vae.z_dim),
        "guidance_embeds of the transformer": (bool(transformer.guidance_embeds), False),
    }
    if components.get("text_encoder") is not None:
        width = components["text_encoder"].config.text_config.hidden_size
        pairs["joint_attention_dim of the transformer"] = (transformer.joint_attention_dim, width)
    return first_difference(pairs)


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.IMG2IMG: _img2img,
    Mode.INPAINT: _inpaint,
    Mode.CONTROLNET: _controlnet,
    Mode.CONTROLNET_INPAINT: _controlnet_inpaint,
}

FAMILY = DiffusersFamily(
    id="qwen-image",
    pipelines={
        Mode.TXT2IMG: "QwenImagePipeline",
        Mode.IMG2IMG: "QwenImageImg2ImgPipeline",
        Mode.INPAINT: "QwenImageInpaintPipeline",
        Mode.CONTROLNET: "QwenImageControlNetPipeline",
        Mode.CONTROLNET_INPAINT: "QwenImageControlNetInpaintPipeline",
    },
    controlnet="QwenImageControlNetModel",
    multi_controlnet="",
    denoiser="transformer",
    denoiser_class="QwenImageTransformer2DModel",
    repeated_blocks=("QwenImageTransformerBlock",),
    t5=None,
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=("max_sequence_length",),
        negative_option_fields=("max_sequence_length",),
        negative_prompt=_negative_prompt,
        results={"prompt_embeds": 0, "prompt_embeds_mask": 1},
        constants={},
    ),
    arguments=arguments,
    misfit=_misfit,
    patch=_patch,
    unpack_latents=_unpack_latents,
)
