"""Stable Diffusion 1 and 2."""

from __future__ import annotations

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
    RESCALE,
)

_TEXT = INVERSIONS | GUIDANCE | {"negative_prompt", "clip_skip"}

FAMILY = Family(
    id="sd15",
    kind="diffusion",
    pipeline="StableDiffusionPipeline",
    more_pipelines=("LatentConsistencyModelPipeline",),
    controlnet="ControlNetModel",
    modes={
        Mode.TXT2IMG: _TEXT | IMAGE_PROMPTS | RESCALE | HIRES,
        Mode.IMG2IMG: _TEXT | IMAGE_PROMPTS | IMAGE,
        Mode.INPAINT: _TEXT | IMAGE_PROMPTS | MASK,
        Mode.CONTROLNET: _TEXT | IMAGE_PROMPTS | CONTROLS,
        Mode.CONTROLNET_IMG2IMG: _TEXT | IMAGE_PROMPTS | CONTROLS | IMAGE,
        Mode.CONTROLNET_INPAINT: _TEXT | IMAGE_PROMPTS | CONTROLS | MASK,
    },
    size_multiple=8,
    t2i_multiple=8,
    max_pixels=2048 * 2048,
    defaults={
        "width": 512, "height": 512, "num_inference_steps": 25, "guidance_scale": 7.5,
        "guidance_rescale": 0.0, "scheduler": "dpmpp_2m", "long_prompt": "chunk",
    },
    denoiser_layers=r"(down|up|input|output)_blocks_|mid(dle)?_block_|conv_(in|out)|time_emb|out_",
    guidance_kinds=("apg", "cfg_zero", "pag"),
    lora_text_encoders=frozenset({"text_encoder"}),
    inversion_encoders=MappingProxyType({"text_encoder": "clip_l"}),
    context_widths=frozenset({768, 1024}),
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "clip", final_norm=True),),
)  # fmt: skip
