"""Ovis-Image."""

from __future__ import annotations

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import SEQUENCE_TEXT

#: Ovis-Image. Its pipeline puts an instruction before a prompt, which does not count, and cuts off so many tokens.
_OVIS_INSTRUCTION = 28
FAMILY = Family(
    id="ovis-image",
    kind="flow",
    pipeline="OvisImagePipeline",
    controlnet="",
    modes={Mode.TXT2IMG: SEQUENCE_TEXT},
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 50, "guidance_scale": 5.0,
        "max_sequence_length": 256, "scheduler": "flow_euler", "long_prompt": "truncate",
    },
    guides_in_turn=True,
    denoiser_layers="",
    lora_text_encoders=frozenset(),
    max_sequence_length=256,
    single_file=False,
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", "prompt", "llm", instruction_tokens=_OVIS_INSTRUCTION),
    ),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip
