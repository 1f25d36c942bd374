"""A small untrained DeepFloyd IF: UNets of pixels, with the schedulers that they were published with."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.support.untrained_parts import SIDE, WIDTH, stirred, t5_text, t5_tokenizer, unet

#: Of all stages, but for what the scheduler cuts off.
NOISE: dict[str, Any] = {
    "beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range", "thresholding": True,
    "dynamic_thresholding_ratio": 0.95,
}  # fmt: skip


def pixel_unet(**more: Any) -> Any:
    """IF's UNet with three resolutions, attention in the smallest; predicts the noise and its variance."""
    options: dict[str, Any] = {
        "in_channels": 3, "out_channels": 6, "sample_size": SIDE, "act_fn": "gelu", "addition_embed_type": "text",
        "addition_embed_type_num_heads": 2, "attention_head_dim": 8, "cross_attention_dim": WIDTH,
        "cross_attention_norm": "group_norm", "encoder_hid_dim": WIDTH, "encoder_hid_dim_type": "text_proj",
        "block_out_channels": (16, 16, 32),
        "down_block_types": (*("ResnetDownsampleBlock2D",) * 2, "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", *("ResnetUpsampleBlock2D",) * 2),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "resnet_time_scale_shift": "scale_shift", **more,
    }  # fmt: skip
    return stirred(unet(**options))


def deepfloyd() -> Any:
    """DeepFloyd IF, stage I."""
    tokenizer = t5_tokenizer(77)
    return diffusers.IFPipeline(
        tokenizer=tokenizer, text_encoder=t5_text(tokenizer), unet=pixel_unet(),
        scheduler=diffusers.DDPMScheduler(**NOISE, sample_max_value=1.5), safety_checker=None,
        feature_extractor=None, watermarker=None, requires_safety_checker=False,
    )  # fmt: skip
