"""HunyuanDiT."""

from __future__ import annotations

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import CONTROLS, RESCALE

_TEXT = RESCALE | {"negative_prompt"}

#: HunyuanDiT. Its transformer has room for the tokens of both encoders, no more and no less.
FAMILY = Family(
    id="hunyuandit",
    kind="diffusion",
    pipeline="HunyuanDiTPipeline",
    controlnet="HunyuanDiT2DControlNetModel",
    modes={Mode.TXT2IMG: _TEXT, Mode.CONTROLNET: _TEXT | CONTROLS},
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 50, "guidance_scale": 5.0,
        "guidance_rescale": 0.0, "scheduler": "ddim", "long_prompt": "truncate",
    },
    denoiser_layers="",
    lora_text_encoders=frozenset(),
    control_ranges=False,
    single_file=False,
    text_encoders=(
        # BERT's start and end tokens; T5's end token.
        TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=2, max_tokens=77),
        TextEncoder("text_encoder_2", "tokenizer_2", "prompt", "llm", template_tokens=1, max_tokens=256),
    ),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip
