"""Kolors."""

from __future__ import annotations

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import IMAGE, IMAGE_PROMPTS, UNET_LAYERS

_TEXT = frozenset({"negative_prompt", "original_size", "crops_coords_top_left", "target_size"})

#: Kolors: SDXL's UNet behind ChatGLM3. Its pipelines read 256 tokens, whatever `max_sequence_length` says.
FAMILY = Family(
    id="kolors",
    kind="diffusion",
    starts_from_latents=False,
    pipeline="KolorsPipeline",
    controlnet="",
    modes={
        Mode.TXT2IMG: _TEXT | IMAGE_PROMPTS,
        Mode.IMG2IMG: _TEXT | IMAGE_PROMPTS | IMAGE,
    },
    size_multiple=8,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 50, "guidance_scale": 5.0,
        "scheduler": "euler", "long_prompt": "truncate",
    },
    denoiser_layers=UNET_LAYERS,
    lora_text_encoders=frozenset(),
    single_file=False,
    text_encoders=(
        # The two tokens at the start.
        TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=2, max_tokens=256),
    ),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip
