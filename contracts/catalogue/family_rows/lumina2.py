"""Lumina-Image 2.0."""

from __future__ import annotations

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import SEQUENCE_TEXT

#: Lumina-Image 2.0. Its table of positions has room for 299 tokens of a prompt.
FAMILY = Family(
    id="lumina2",
    kind="flow",
    pipeline="Lumina2Pipeline",
    controlnet="",
    modes={Mode.TXT2IMG: SEQUENCE_TEXT},
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 30, "guidance_scale": 4.0,
        "max_sequence_length": 256, "scheduler": "flow_euler", "long_prompt": "truncate",
    },
    denoiser_layers=r"layers_\d+_|(noise|context)_refiner_|x_embedder|time_caption_embed|norm_out",
    lora_text_encoders=frozenset(),
    max_sequence_length=256,
    single_file=False,
    gguf=True,
    # The instruction before a prompt, and the token at the start.
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=31),),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip
