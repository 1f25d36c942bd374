"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import CONTROLS, GUIDANCE, HIRES, IMAGE, MASK

_TEXT = GUIDANCE | {"prompt_2", "prompt_3", "negative_prompt", "clip_skip", "max_sequence_length"}

FAMILY = Family(
    id="sd3",
    kind="flow",
    pipeline="StableDiffusion3Pipeline",
    controlnet="SD3ControlNetModel",
    modes={
        Mode.TXT2IMG: _TEXT | HIRES,
        Mode.IMG2IMG: _TEXT | IMAGE,
        Mode.INPAINT: _TEXT | MASK,
        Mode.CONTROLNET: _TEXT | CONTROLS,
        # The pipeline starts from pure noise, guided by its ControlNet, so it has neither strength nor crop.
        Mode.CONTROLNET_INPAINT: _TEXT | CONTROLS | {"image", "mask_image", "mask_blur"},
    },
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 28, "guidance_scale": 7.0,
        "max_sequence_length": 256, "scheduler": "flow_euler", "long_prompt": "chunk",
    },
    denoiser_layers=r"transformer_blocks_|pos_embed|context_embedder|time_text_embed|norm_out|proj_out",
    lora_text_encoders=frozenset({"text_encoder", "text_encoder_2"}),
    max_sequence_length=512,
    guidance_kinds=("apg", "cfg_zero", "slg"),
    inpaint_control_only=True,
    controls_encoded_once=frozenset({Mode.CONTROLNET_INPAINT}),
    t5_optional=True,
    gguf=True,
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", "prompt", "clip"),
        TextEncoder("text_encoder_2", "tokenizer_2", "prompt_2", "clip"),
        TextEncoder("text_encoder_3", "tokenizer_3", "prompt_3", "t5"),
    ),
)  # fmt: skip
