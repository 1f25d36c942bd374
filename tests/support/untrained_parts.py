"""What the small untrained checkpoints have in common: widths, seeded weights, the image VAE, a UNet, T5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers

#: Width of all text encoders.
WIDTH = 32
#: Side of the images that the models make by default, in pixels.
SIDE = 64


def seeded(make: Callable[[], Any], seed: int = 0) -> Any:
    """Return what `make` builds under this seed, in evaluation mode."""
    torch.manual_seed(seed)
    return make().eval()


def stirred(model: Any, std: float = 0.1) -> Any:
    """Give values to the weights that a fresh model has at zero, so that all its inputs act."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=std, generator=generator)
    return model


def vae(channels: int = 4, **more: Any) -> Any:
    """The image VAE of Stable Diffusion: an eighth of the side."""
    options: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "latent_channels": channels,
        "norm_num_groups": 4, "sample_size": SIDE, **more,
    }  # fmt: skip
    return seeded(lambda: diffusers.AutoencoderKL(**options))


def unet(**more: Any) -> Any:
    """Stable Diffusion's UNet with two resolutions."""
    options: dict[str, Any] = {
        "sample_size": SIDE // 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 32),
        "layers_per_block": 1, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "attention_head_dim": 2, "norm_num_groups": 8,
        "cross_attention_dim": WIDTH, **more,
    }  # fmt: skip
    return seeded(lambda: diffusers.UNet2DConditionModel(**options))


def t5_tokenizer(length: int = 512) -> Any:
    """T5's Unigram over printable ASCII."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(chr(code), -8.0) for code in range(33, 127)]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def t5_text(tokenizer: Any) -> Any:
    """T5's encoder, version 1.1, with two layers."""
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=2 * WIDTH, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False, dropout_rate=0.0,
        tie_word_embeddings=False,
    )  # fmt: skip
    return seeded(lambda: transformers.T5EncoderModel(config))
