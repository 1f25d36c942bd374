"""Z-Image, small and untrained, and the calls of diffusers that its images equal."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import diffusers
import torch
import transformers

from contracts.catalogue.families import Mode
from tests.support.bare_cases import CONTROL, CONTROL_CALL, IMAGE, MASK, SIZE, START, Case
from tests.support.untrained_llm import decoder_options, qwen_tokenizer
from tests.support.untrained_parts import WIDTH, seeded, stirred, vae


def pipeline() -> Any:
    """Z-Image, not distilled, with two layers."""
    tokenizer = qwen_tokenizer()
    transformer = seeded(
        lambda: diffusers.ZImageTransformer2DModel(
            in_channels=16, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
            axes_dims=[8, 4, 4], axes_lens=[1024, 64, 64],
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    for name in ("x_pad_token", "cap_pad_token"):  # the class leaves them uninitialised
        torch.nn.init.normal_(getattr(transformer, name), std=0.02, generator=generator)
    config = transformers.Qwen3Config(**decoder_options(tokenizer))
    latent_vae = vae(16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)
    return diffusers.ZImagePipeline(
        tokenizer=tokenizer, text_encoder=seeded(lambda: transformers.Qwen3Model(config)), vae=latent_vae,
        transformer=stirred(transformer), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
    )  # fmt: skip


def controlnet(transformer: Any) -> Any:
    """Of version 2, which reads a mask and the masked image, too."""
    config = transformer.config
    return stirred(
        seeded(
            lambda: diffusers.ZImageControlNetModel(
                control_layers_places=[0], control_refiner_layers_places=[0], control_in_dim=33,
                add_control_noise_refiner="control_noise_refiner", dim=config.dim, n_refiner_layers=1,
                n_heads=config.n_heads, n_kv_heads=config.n_kv_heads,
            )
        )
    )  # fmt: skip


def _case(mode: Mode, name: str, scheduler: str, call: Any = MappingProxyType({}), **fields: Any) -> Case:
    both = {"guidance_scale": 3.0, "max_sequence_length": 64, **fields.pop("both", {})}
    scale = {name: value for name, value in CONTROL_CALL.items() if "scale" in name and "controlnet" in mode}
    return Case(
        "z-image", mode, f"ZImage{name}Pipeline", {**SIZE, **call, **scale, **both}, {**fields, **both}, scheduler
    )


CASES = [
    _case(Mode.TXT2IMG, "", "flow_euler"),
    _case(Mode.TXT2IMG, "", "flow_euler", both={"guidance_scale": 0.0, "negative_prompt": ""}),
    _case(Mode.IMG2IMG, "Img2Img", "flow_euler", START, strength=0.8),
    _case(Mode.INPAINT, "Inpaint", "flow_euler", START | {"mask_image": MASK}, strength=0.8, mask_blur=0),
    _case(Mode.CONTROLNET, "ControlNet", "flow_euler", {"control_image": CONTROL}),
    _case(
        Mode.CONTROLNET_INPAINT, "ControlNetInpaint", "flow_euler",
        {"control_image": CONTROL, "image": IMAGE, "mask_image": MASK}, mask_blur=0,
    ),
]  # fmt: skip
