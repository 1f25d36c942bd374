"""CogView4."""

from __future__ import annotations

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import SEQUENCE_TEXT

#: Its scheduler steps by timesteps that its schedule does not shift, and by sigmas that it does.
FAMILY = Family(
    id="cogview4",
    kind="flow",
    pipeline="CogView4Pipeline",
    controlnet="",
    modes={Mode.TXT2IMG: SEQUENCE_TEXT | {"original_size", "crops_coords_top_left"}},
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 50, "guidance_scale": 3.5,
        "max_sequence_length": 1024, "scheduler": "flow_euler", "long_prompt": "truncate",
    },
    guides_in_turn=True,
    denoiser_layers=r"transformer_blocks_|patch_embed|time_condition_embed|norm_out|proj_out",
    lora_text_encoders=frozenset(),
    max_sequence_length=1024,
    single_file=False,
    # Two tokens at the start.
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=2),),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip
