"""Sana and Sana-Sprint."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import CONTROLS, IMAGE, SEQUENCE_TEXT

#: Tokens of its instruction, which has 203 words and marks; some words are two.
_SANA_INSTRUCTION = 215
#: Sana. Its VAE has a stride of 32, and the transformer makes a token of each position.
FAMILY = Family(
    id="sana",
    kind="flow",
    pipeline="SanaPipeline",
    controlnet="SanaControlNetModel",
    modes={Mode.TXT2IMG: SEQUENCE_TEXT, Mode.CONTROLNET: SEQUENCE_TEXT | CONTROLS},
    size_multiple=32,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 20, "guidance_scale": 4.5,
        "max_sequence_length": 300, "scheduler": "flow_dpmpp_2m", "long_prompt": "truncate",
    },
    denoiser_layers=r"transformer_blocks_|patch_embed|caption_projection|time_embed|proj_out",
    lora_text_encoders=frozenset(),
    max_sequence_length=300,
    max_controls=1,
    control_ranges=False,
    single_file=False,
    gguf=True,
    # The token at the start, and the last one of the pipeline's instruction: its other tokens are cut off.
    text_encoders=(
        TextEncoder(
            "text_encoder", "tokenizer", "prompt", "llm", template_tokens=2, instruction_tokens=_SANA_INSTRUCTION
        ),
    ),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip

_LENGTH = frozenset({"max_sequence_length"})
#: Sana-Sprint: distilled for one to four steps, with guidance as an input.
_SANA_SPRINT = replace(
    FAMILY,
    id="sana-sprint",
    kind="trigflow",
    more_kinds=(),
    starts_from_latents=False,
    pipeline="SanaSprintPipeline",
    controlnet="",
    modes={Mode.TXT2IMG: _LENGTH, Mode.IMG2IMG: _LENGTH | IMAGE},
    defaults={**FAMILY.defaults, "num_inference_steps": 2, "scheduler": "scm"},
    negative_needs_true_cfg=True,
)
FAMILY = replace(
    FAMILY,
    more_kinds=("trigflow",),
    other_checkpoints=MappingProxyType(
        {"SanaSprintPipeline": _SANA_SPRINT, "SanaSprintImg2ImgPipeline": _SANA_SPRINT}
    ),
)
