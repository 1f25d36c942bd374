"""Rows of `families.py` whose prompts T5 reads, alone or beside BERT. Pure."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_rows.mode_fields import (
    CONTROLS,
    GUIDANCE,
    HIRES,
    IMAGE,
    MASK,
    RESCALE,
    SEQUENCE_TEXT,
)

#: Beginnings of the names of the layers of FLUX.1's transformer, and of those that were made from it.
FLUX_LAYERS = (
    r"(single_)?transformer_blocks_|(double|single)_blocks_|(x|context)_embedder|time_text_embed|norm_out|proj_out"
)

PIXART = Family(
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
    PIXART,
    id="pixart-alpha",
    pipeline="PixArtAlphaPipeline",
    defaults={**PIXART.defaults, "max_sequence_length": 120},
    max_sequence_length=120,
)
PIXART = replace(PIXART, other_checkpoints=MappingProxyType({"PixArtAlphaPipeline": _PIXART_ALPHA}))

CHROMA = Family(
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

_HUNYUANDIT_TEXT = RESCALE | {"negative_prompt"}

#: HunyuanDiT. Its transformer has room for the tokens of both encoders, no more and no less.
HUNYUANDIT = Family(
    id="hunyuandit",
    kind="diffusion",
    pipeline="HunyuanDiTPipeline",
    controlnet="HunyuanDiT2DControlNetModel",
    modes={Mode.TXT2IMG: _HUNYUANDIT_TEXT, Mode.CONTROLNET: _HUNYUANDIT_TEXT | CONTROLS},
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
        # Its tokens at the start and at the end; of T5, the one at the end.
        TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=2, max_tokens=77),
        TextEncoder("text_encoder_2", "tokenizer_2", "prompt", "llm", template_tokens=1, max_tokens=256),
    ),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip

#: AuraFlow. Its encoder is a T5 whose layers each have their own biases of positions.
AURA_FLOW = Family(
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
