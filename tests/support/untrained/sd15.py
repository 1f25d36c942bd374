"""Stable Diffusion 1.5, small and untrained, and the calls of diffusers that its images equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import transformers
from tokenizers import pre_tokenizers

from contracts.catalogue.families import Mode
from tests.support.bare_cases import CONTROL, CONTROL_CALL, MASK, SIZE, START, Case
from tests.support.combinations import ALL
from tests.support.untrained_parts import WIDTH, seeded, stirred, unet, vae


def clip_tokenizer() -> Any:
    """CLIP's byte-pair encoding without merges: every byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(symbol + "</w>" for symbol in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def clip_text(tokenizer: Any) -> Any:
    """CLIP's text model with three layers."""
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=3,
        num_attention_heads=4, projection_dim=WIDTH, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return seeded(lambda: transformers.CLIPTextModel(config))


def pipeline(**unet_options: Any) -> Any:
    """Stable Diffusion 1.5, with the scheduler that it was published with."""
    tokenizer = clip_tokenizer()
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    return diffusers.StableDiffusionPipeline(
        tokenizer=tokenizer, text_encoder=clip_text(tokenizer), unet=unet(**unet_options), vae=vae(),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def controlnet(denoiser: Any) -> Any:
    """A ControlNet like the UNet."""
    return stirred(
        diffusers.ControlNetModel.from_unet(denoiser, conditioning_embedding_out_channels=(8, 8, 8, 16))
    )


def agree(pipeline: Any) -> None:
    """Have a text encoder of today's transformers be what the installed diffusers asks it for."""
    object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)


def _case(mode: Mode, name: str, scheduler: str, call: Mapping[str, Any], **fields: Any) -> Case:
    guidance = {"guidance_scale": 5.0}
    steps = 4 if "controlnet" in mode else 3  # of fewer, none is in the ControlNet's range
    call, fields = {**call, **guidance}, {**fields, **guidance}
    return Case("sd15", mode, f"StableDiffusion{name}Pipeline", call, fields, scheduler, steps)


CASES = [
    _case(Mode.TXT2IMG, "", "pndm", SIZE | {"guidance_rescale": 0.5}, guidance_rescale=0.5),
    _case(Mode.TXT2IMG, "", "euler_a", SIZE | {"clip_skip": 1}, clip_skip=1),
    _case(Mode.IMG2IMG, "Img2Img", "dpmpp_2m_karras", START, strength=0.8),
    _case(Mode.INPAINT, "Inpaint", "euler", START | SIZE | {"mask_image": MASK}, strength=0.8, mask_blur=0),
    _case(Mode.CONTROLNET, "ControlNet", "euler", {"image": CONTROL, **SIZE, **CONTROL_CALL}),
    _case(
        Mode.CONTROLNET_IMG2IMG, "ControlNetImg2Img", "pndm", START | {"control_image": CONTROL, **CONTROL_CALL},
        strength=0.8,
    ),
    _case(
        Mode.CONTROLNET_INPAINT, "ControlNetInpaint", "euler_a",
        START | SIZE | {"mask_image": MASK, "control_image": CONTROL, **CONTROL_CALL}, strength=0.8, mask_blur=0,
    ),
    *(_case(Mode.TXT2IMG, "", scheduler, SIZE) for scheduler in ("lcm", "tcd", "euler_trailing") if ALL),
]  # fmt: skip
