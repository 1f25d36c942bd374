"""Stable Diffusion XL and its refiner."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import (
    CONTROLS,
    GUIDANCE,
    HIRES,
    IMAGE,
    IMAGE_PROMPTS,
    INVERSIONS,
    MASK,
    REFINER,
    RESCALE,
    UNET_LAYERS,
)

_TEXT = INVERSIONS | GUIDANCE | {
    "prompt_2", "negative_prompt", "clip_skip", "original_size", "crops_coords_top_left", "target_size",
}  # fmt: skip

_BASE = Family(
    id="sdxl",
    kind="diffusion",
    more_kinds=("edm",),  # Playground 2.5
    pipeline="StableDiffusionXLPipeline",
    controlnet="ControlNetModel",
    union="ControlNetUnionModel",
    modes={
        Mode.TXT2IMG: _TEXT | IMAGE_PROMPTS | RESCALE | REFINER | HIRES,
        Mode.IMG2IMG: _TEXT | IMAGE_PROMPTS | RESCALE | REFINER | IMAGE,
        Mode.INPAINT: _TEXT | IMAGE_PROMPTS | RESCALE | REFINER | MASK,
        Mode.CONTROLNET: _TEXT | IMAGE_PROMPTS | CONTROLS,
        Mode.CONTROLNET_IMG2IMG: _TEXT | IMAGE_PROMPTS | CONTROLS | IMAGE,
        Mode.CONTROLNET_INPAINT: _TEXT | IMAGE_PROMPTS | RESCALE | CONTROLS | MASK,
    },
    size_multiple=8,
    t2i_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 30, "guidance_scale": 5.0,
        "guidance_rescale": 0.0, "scheduler": "euler", "long_prompt": "chunk",
    },
    denoiser_layers=UNET_LAYERS,
    guidance_kinds=("apg", "cfg_zero", "pag"),
    lora_text_encoders=frozenset({"text_encoder", "text_encoder_2"}),
    inversion_encoders=MappingProxyType({"text_encoder": "clip_l", "text_encoder_2": "clip_g"}),
    context_widths=frozenset({2048}),
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", "prompt", "clip"),
        TextEncoder("text_encoder_2", "tokenizer_2", "prompt_2", "clip"),
    ),
)  # fmt: skip

_REFINER_TEXT = frozenset({"negative_prompt", "original_size", "crops_coords_top_left"})

#: The FAMILY refiner: another UNet behind the second encoder alone, trained on the last steps only.
_REFINER = replace(
    _BASE,
    id="sdxl-refiner",
    more_kinds=(),
    pipeline="StableDiffusionXLImg2ImgPipeline",
    controlnet="",
    union="",
    t2i_multiple=None,
    modes={
        Mode.IMG2IMG: _REFINER_TEXT | RESCALE | IMAGE,
        Mode.INPAINT: _REFINER_TEXT | RESCALE | MASK,
    },
    defaults={**_BASE.defaults, "strength": 0.3},
    denoiser_layers="",
    guidance_kinds=(),
    lora_text_encoders=frozenset(),
    inversion_encoders=MappingProxyType({}),
    context_widths=frozenset({1280}),
    single_file=False,
    text_encoders=(TextEncoder("text_encoder_2", "tokenizer_2", "prompt", "clip"),),
    index_entries=MappingProxyType({"requires_aesthetics_score": True}),
)
FAMILY = replace(
    _BASE,
    later_models="sdxl-refiner",
    other_checkpoints=MappingProxyType(
        {"StableDiffusionXLImg2ImgPipeline": _REFINER, "StableDiffusionXLInpaintPipeline": _REFINER}
    ),
)
