"""Chroma, small and untrained, and the calls of diffusers that its images equal."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import diffusers

from contracts.catalogue.families import Mode
from tests.support.bare_cases import MASK, SIZE, START, Case
from tests.support.untrained_parts import WIDTH, seeded, t5_text, t5_tokenizer, vae


def pipeline() -> Any:
    """Chroma with one block of each kind."""
    tokenizer = t5_tokenizer()
    transformer = seeded(
        lambda: diffusers.ChromaTransformer2DModel(
            in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=WIDTH, axes_dims_rope=(4, 6, 6), approximator_num_channels=8,
            approximator_hidden_dim=16, approximator_layers=1,
        )
    )  # fmt: skip
    latent_vae = vae(16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)
    return diffusers.ChromaPipeline(
        tokenizer=tokenizer, text_encoder=t5_text(tokenizer), vae=latent_vae, transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )  # fmt: skip


def agree(pipeline: Any) -> None:
    """Have its inpaint ask the transformer for nothing that the class no longer has."""
    if isinstance(pipeline, diffusers.ChromaInpaintPipeline):
        pipeline.transformer.register_to_config(guidance_embeds=False)


def _case(mode: Mode, name: str, scheduler: str, call: Any = MappingProxyType({}), **fields: Any) -> Case:
    both = {"guidance_scale": 4.0, "max_sequence_length": 64}
    return Case("chroma", mode, f"{name}Pipeline", {**SIZE, **call, **both}, {**fields, **both}, scheduler)


CASES = [
    _case(Mode.TXT2IMG, "Chroma", "flow_euler"),
    _case(Mode.IMG2IMG, "ChromaImg2Img", "flow_euler", START, strength=0.8),
    _case(
        Mode.INPAINT, "ChromaInpaint", "flow_euler", START | {"mask_image": MASK},
        strength=0.8, mask_blur=0,
    ),
]  # fmt: skip
