"""DeepFloyd IF, small and untrained, and the calls of diffusers that its images equal."""

from __future__ import annotations

from typing import Any

import diffusers

from contracts.catalogue.families import Mode
from tests.support.bare_cases import MASK, SIZE, START, TEXTS, Case
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


def pipeline() -> Any:
    """DeepFloyd IF, stage I."""
    tokenizer = t5_tokenizer(77)
    return diffusers.IFPipeline(
        tokenizer=tokenizer, text_encoder=t5_text(tokenizer), unet=pixel_unet(),
        scheduler=diffusers.DDPMScheduler(**NOISE, sample_max_value=1.5), safety_checker=None,
        feature_extractor=None, watermarker=None, requires_safety_checker=False,
    )  # fmt: skip


def _case(mode: Mode, name: str, scheduler: str, call: Any = SIZE, **fields: Any) -> Case:
    both: dict[str, Any] = {"guidance_scale": fields.pop("guidance_scale", 4.0)}
    both |= {"negative_prompt": TEXTS["negative_prompt"] if both["guidance_scale"] > 1 else None}
    given = fields.get("dynamic_thresholding", {})
    settings = {"dynamic_thresholding_ratio": given.get("ratio"), "sample_max_value": given.get("max_value")}
    return Case(
        "deepfloyd", mode, f"IF{name}Pipeline", {**call, **both, "clean_caption": False}, {**fields, **both},
        scheduler, settings={name: value for name, value in settings.items() if value is not None},
    )  # fmt: skip


CASES = [
    _case(Mode.TXT2IMG, "", "ddpm"),
    _case(Mode.TXT2IMG, "", "ddpm", guidance_scale=1.0),
    _case(Mode.TXT2IMG, "", "ddpm_dpmpp_2m", dynamic_thresholding={"ratio": 0.8, "max_value": 3.0}),
    _case(Mode.IMG2IMG, "Img2Img", "ddpm", START, strength=0.8),
    _case(
        Mode.INPAINT, "Inpainting", "ddpm", START | {"mask_image": MASK}, strength=0.8, mask_blur=0,
        dynamic_thresholding={"max_value": 1.0},
    ),
]  # fmt: skip
