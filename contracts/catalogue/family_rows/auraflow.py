"""AuraFlow."""

from __future__ import annotations

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import SEQUENCE_TEXT

#: AuraFlow. Its encoder is a T5 whose layers each have their own biases of positions.
FAMILY = Family(
    id="auraflow",
    kind="flow",
    pipeline="AuraFlowPipeline",
    controlnet="",
    modes={Mode.TXT2IMG: SEQUENCE_TEXT},
    size_multiple=16,
    max_pixels=1536 * 1536,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 50, "guidance_scale": 3.5,
        "max_sequence_length": 256, "scheduler": "flow_euler", "long_prompt": "truncate",
    },
    denoiser_layers=r"(joint|single)_transformer_blocks_|pos_embed|context_embedder|time_step_proj|norm_out|proj_out",
    lora_text_encoders=frozenset(),
    max_sequence_length=256,
    single_file=False,
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=1),),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip
