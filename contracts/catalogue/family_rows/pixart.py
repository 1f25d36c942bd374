"""PixArt-Σ and PixArt-α."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import SEQUENCE_TEXT

FAMILY = Family(
    id="pixart",
    kind="diffusion",
    pipeline="PixArtSigmaPipeline",
    controlnet="",
    modes={Mode.TXT2IMG: SEQUENCE_TEXT},
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 20, "guidance_scale": 4.5,
        "max_sequence_length": 300, "scheduler": "dpmpp_2m", "long_prompt": "truncate",
    },
    denoiser_layers="",
    lora_text_encoders=frozenset(),
    max_sequence_length=300,
    single_file=False,
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "t5"),),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip
#: PixArt-α: those for 1024 pixels are told the image's size and aspect; T5 reads less.
_PIXART_ALPHA = replace(
    FAMILY,
    id="pixart-alpha",
    pipeline="PixArtAlphaPipeline",
    defaults={**FAMILY.defaults, "max_sequence_length": 120},
    max_sequence_length=120,
)
FAMILY = replace(FAMILY, other_checkpoints=MappingProxyType({"PixArtAlphaPipeline": _PIXART_ALPHA}))
