"""Ovis-Image, small and untrained, and the calls of diffusers that its images equal."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from contracts.catalogue.families import Mode
from tests.support.bare_cases import SIZE, TEXTS, Case
from tests.support.untrained_llm import decoder_options, qwen_tokenizer
from tests.support.untrained_parts import WIDTH, seeded, vae


def pipeline() -> Any:
    """Ovis-Image with one block of each kind, whose tokenizer has the words of the pipeline's instruction."""
    tokenizer = qwen_tokenizer(
        "Describe the image by detailing the color, quantity, text, shape, size, texture, spatial relationships "
        "of the objects and background: "
    )
    config = transformers.Qwen3Config(**decoder_options(tokenizer))
    transformer = seeded(
        lambda: diffusers.OvisImageTransformer2DModel(
            in_channels=64, out_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, axes_dims_rope=(4, 6, 6),
        )
    )  # fmt: skip
    with torch.no_grad():  # so that prompts show in the image
        for layer in (transformer.context_embedder, transformer.proj_out):
            layer.weight.mul_(30 if layer is transformer.context_embedder else 8)
    latent_vae = vae(16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)
    return diffusers.OvisImagePipeline(
        tokenizer=tokenizer, text_encoder=seeded(lambda: transformers.Qwen3Model(config)), vae=latent_vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )  # fmt: skip


def _case(guidance_scale: float) -> Case:
    both: dict[str, Any] = {"guidance_scale": guidance_scale, "max_sequence_length": 64}
    both |= {"negative_prompt": TEXTS["negative_prompt"] if guidance_scale > 1 else None}
    return Case("ovis-image", Mode.TXT2IMG, "OvisImagePipeline", {**SIZE, **both}, both, "flow_euler", 3)


CASES = [
    _case(3.0),
    _case(1.0),
]  # fmt: skip
