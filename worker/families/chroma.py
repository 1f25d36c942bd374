"""Chroma: FLUX.1's transformer without CLIP and distilled guidance; the padding of T5's sequence is masked.

Arguments are those of diffusers' `ChromaPipeline` and its variants (`diffusers.pipelines.chroma`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, transformer_misfit
from worker.families.inputs import GenerationInputs
from worker.families.packed_latents import PATCH, unpack_latents
from worker.families.prompts import PromptEncoding, negative_if_guided


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Chroma pipeline."""
    return {
        **inputs.size,
        "num_inference_steps": inputs.job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale,
        "max_sequence_length": inputs.job.max_sequence_length,
        **_BY_MODE[inputs.job.mode](inputs),
    }


def _txt2img(inputs: GenerationInputs) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _img2img(inputs: GenerationInputs) -> dict[str, Any]:
    return inputs.start


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **inputs.inpaint_mask}


def _prepare(pipeline: Any) -> None:
    """Add the entry that diffusers' inpainting pipeline (0.42) reads and the transformer's configuration lacks.

    `tests/support/untrained/chroma.py` needs the same for its direct calls of that pipeline.
    """
    if "guidance_embeds" not in pipeline.transformer.config:
        pipeline.transformer.register_to_config(guidance_embeds=False)


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.IMG2IMG: _img2img,
    Mode.INPAINT: _inpaint,
}

FAMILY = DiffusersFamily(
    id="chroma",
    pipelines={
        Mode.TXT2IMG: "ChromaPipeline",
        Mode.IMG2IMG: "ChromaImg2ImgPipeline",
        Mode.INPAINT: "ChromaInpaintPipeline",
    },
    controlnet="",
    multi_controlnet="",
    denoiser="transformer",
    denoiser_class="ChromaTransformer2DModel",
    repeated_blocks=("ChromaTransformerBlock", "ChromaSingleTransformerBlock"),
    t5="text_encoder",
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=("max_sequence_length",),
        negative_option_fields=("max_sequence_length",),
        negative_prompt=negative_if_guided,
        results={"prompt_embeds": 0, "prompt_attention_mask": 2},
        constants={"do_classifier_free_guidance": False},
    ),
    arguments=arguments,
    prepare=_prepare,
    misfit=partial(transformer_misfit, text="joint_attention_dim", patch=PATCH),
    unpack_latents=unpack_latents,
    guides_in_two_calls=True,
)
