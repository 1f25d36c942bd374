"""AuraFlow, small and untrained, and the calls of diffusers that its images equal."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers

from contracts.catalogue.families import Mode
from tests.support.bare_cases import SIZE, TEXTS, Case
from tests.support.untrained_parts import WIDTH, seeded, t5_tokenizer, vae


def pipeline() -> Any:
    """AuraFlow with one block of each kind."""
    tokenizer = t5_tokenizer(256)
    config = transformers.UMT5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=2 * WIDTH, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False, dropout_rate=0.0,
    )  # fmt: skip
    transformer = seeded(
        lambda: diffusers.AuraFlowTransformer2DModel(
            sample_size=8, num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, caption_projection_dim=32, pos_embed_max_size=64,
        )
    )  # fmt: skip
    return diffusers.AuraFlowPipeline(
        tokenizer=tokenizer, text_encoder=seeded(lambda: transformers.UMT5EncoderModel(config)), vae=vae(),
        transformer=transformer, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73),
    )  # fmt: skip


def _case(scheduler: str, guidance_scale: float, **settings: Any) -> Case:
    both: dict[str, Any] = {"guidance_scale": guidance_scale, "max_sequence_length": 64}
    both |= {"negative_prompt": TEXTS["negative_prompt"] if guidance_scale > 1 else None}
    call = {**SIZE, **both}
    return Case("auraflow", Mode.TXT2IMG, "AuraFlowPipeline", call, both, scheduler, settings=settings)


CASES = [
    _case("flow_euler", 3.0),
    _case("flow_euler", 1.0),
    _case(
        "flow_dpmpp_2m", 3.0, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=1.73
    ),
]  # fmt: skip
