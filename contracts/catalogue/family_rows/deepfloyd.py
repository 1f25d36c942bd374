"""DeepFloyd IF, stages I and II, which work on pixels, without a VAE."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import CASCADE, IMAGE, MASK, THRESHOLDING

#: Tokens that T5 reads for DeepFloyd IF, as it was trained.
_TOKENS = 77
_TEXT = THRESHOLDING | {"negative_prompt"}

_STAGE_I = Family(
    id="deepfloyd",
    kind="learned_variance",
    pipeline="IFPipeline",
    controlnet="",
    modes={
        Mode.TXT2IMG: _TEXT | CASCADE,
        Mode.IMG2IMG: _TEXT | CASCADE | IMAGE,
        Mode.INPAINT: _TEXT | CASCADE | MASK,
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

#: Stage II: another UNet, which makes images four times as wide and high of stage I's and of its prompt, as T5 has
#: read that already.
_STAGE_II = replace(
    _STAGE_I,
    id="deepfloyd-ii",
    pipeline="IFSuperResolutionPipeline",
    modes={
        Mode.TXT2IMG: _TEXT,
        Mode.IMG2IMG: _TEXT | IMAGE,
        Mode.INPAINT: _TEXT | MASK,
    },
    max_pixels=1024 * 1024,
    defaults={
        **_STAGE_I.defaults, "width": 256, "height": 256, "num_inference_steps": 50, "guidance_scale": 4.0,
        "strength": 0.8,
    },
    text_encoders=(),
    runs_later_only=True,
    unused=frozenset({"text_encoder", "tokenizer"}),
)  # fmt: skip
#: DeepFloyd IF, whose stage I makes images of 64 × 64 pixels.
FAMILY = replace(
    _STAGE_I,
    later_models="deepfloyd-ii",
    other_checkpoints=MappingProxyType(
        {f"IF{task}SuperResolutionPipeline": _STAGE_II for task in ("", "Img2Img", "Inpainting")}
    ),
)
