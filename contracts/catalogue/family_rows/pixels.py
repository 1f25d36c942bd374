"""Rows of `families.py` for models that work on pixels, without a VAE. Pure."""

from __future__ import annotations

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_rows.mode_fields import IMAGE, MASK, THRESHOLDING

#: Tokens that T5 reads for DeepFloyd IF, as it was trained.
_TOKENS = 77
_TEXT = THRESHOLDING | {"negative_prompt"}

#: DeepFloyd IF, stage I: images of 64 × 64 pixels.
DEEPFLOYD = Family(
    id="deepfloyd",
    kind="learned_variance",
    pipeline="IFPipeline",
    controlnet="",
    modes={
        Mode.TXT2IMG: _TEXT,
        Mode.IMG2IMG: _TEXT | IMAGE,
        Mode.INPAINT: _TEXT | MASK,
    },
    size_multiple=8,
    max_pixels=256 * 256,
    defaults={
        "width": 64, "height": 64, "num_inference_steps": 100, "guidance_scale": 7.0, "strength": 0.7,
        "scheduler": "ddpm", "long_prompt": "truncate",
    },
    denoiser_layers="",
    lora_text_encoders=frozenset(),
    single_file=False,
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "t5", max_tokens=_TOKENS),),
    long_prompts=("truncate", "refuse"),
    starts_from_latents=False,
)  # fmt: skip
