"""Chroma."""

from __future__ import annotations

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import FLUX_LAYERS, GUIDANCE, HIRES, IMAGE, MASK, SEQUENCE_TEXT

FAMILY = Family(
    id="chroma",
    kind="flow",
    starts_from_latents=False,
    pipeline="ChromaPipeline",
    controlnet="",
    modes={
        Mode.TXT2IMG: SEQUENCE_TEXT | GUIDANCE | HIRES,
        Mode.IMG2IMG: SEQUENCE_TEXT | GUIDANCE | IMAGE,
        Mode.INPAINT: SEQUENCE_TEXT | GUIDANCE | MASK,
    },
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 35, "guidance_scale": 5.0,
        "max_sequence_length": 512, "scheduler": "flow_euler", "long_prompt": "truncate",
    },
    denoiser_layers=FLUX_LAYERS + "|distilled_guidance_layer_",
    guidance_kinds=("apg", "cfg_zero"),
    lora_text_encoders=frozenset(),
    max_sequence_length=512,
    single_file=False,
    gguf=True,
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "t5"),),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip
