"""Lumina-Image 2.0, small and untrained, and the calls of diffusers that its images equal."""

from __future__ import annotations

from typing import Any

import diffusers

from contracts.catalogue.families import Mode
from tests.support.bare_cases import SIZE, TEXTS, Case
from tests.support.untrained_llm import gemma_text, gemma_tokenizer
from tests.support.untrained_parts import WIDTH, seeded, stirred, vae


def pipeline() -> Any:
    """Lumina-Image 2.0 with two layers."""
    tokenizer = gemma_tokenizer()
    transformer = seeded(
        lambda: diffusers.Lumina2Transformer2DModel(
            sample_size=8, in_channels=16, hidden_size=48, num_layers=2, num_refiner_layers=1,
            num_attention_heads=3, num_kv_heads=1, multiple_of=16, axes_dim_rope=(8, 4, 4),
            axes_lens=(300, 64, 64), cap_feat_dim=WIDTH,
        )
    )  # fmt: skip
    latent_vae = vae(16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)
    return diffusers.Lumina2Pipeline(
        tokenizer=tokenizer, text_encoder=gemma_text(tokenizer), vae=latent_vae, transformer=stirred(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
    )  # fmt: skip


def _case(scheduler: str, guidance_scale: float) -> Case:
    both = {"guidance_scale": guidance_scale, "max_sequence_length": 256}
    texts = {"negative_prompt": TEXTS["negative_prompt"] if guidance_scale > 1 else None}
    return Case("lumina2", Mode.TXT2IMG, "Lumina2Pipeline", {**SIZE, **both, **texts}, both | texts, scheduler, 2)


CASES = [
    _case("flow_euler", 3.0),
    _case("flow_euler", 1.0),
]  # fmt: skip
