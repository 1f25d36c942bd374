"""The real classes of each family at a tiny size, with fresh weights. Knows no data and no training."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)

#: Width of a CLIP's hidden states and of its pooled vector.
CLIP_WIDTH = 64
#: SD3 lays both CLIPs side by side into T5's width.
T5_WIDTH = 2 * CLIP_WIDTH
LATENT_EDGE = 8
_UNET_CHANNELS = (64, 96)
_AUTOENCODER_CHANNELS = (16, 32, 48, 64)
AUTOENCODER_LEVELS = len(_AUTOENCODER_CHANNELS)
#: Sides of what the image encoders see, and of their patches, in pixels.
_SEEN_PIXELS = 64
_CLIP_PATCH_PIXELS, _SIGLIP_PATCH_PIXELS = 8, 16
_VISION: dict[str, Any] = {
    "image_size": _SEEN_PIXELS, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
    "num_hidden_layers": 3,
}  # fmt: skip


def clip_config(vocabulary_size: int, layers: int) -> CLIPTextConfig:
    """The last two ids of our vocabulary are start and end."""
    return CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=CLIP_WIDTH,
        intermediate_size=2 * CLIP_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=CLIP_WIDTH,
        hidden_act="quick_gelu",
        bos_token_id=vocabulary_size - 2,
        eos_token_id=vocabulary_size - 1,
        pad_token_id=vocabulary_size - 1,
    )


def build_clip(vocabulary_size: int) -> CLIPTextModel:
    """The encoder without projection: SDXL's first, and the only CLIP of Stable Diffusion 1 and FLUX."""
    return CLIPTextModel(clip_config(vocabulary_size, layers=3))


def build_projected_clip(vocabulary_size: int, layers: int = 4) -> CLIPTextModelWithProjection:
    """The encoder with projection: SDXL's second and both of SD3's."""
    return CLIPTextModelWithProjection(clip_config(vocabulary_size, layers))


def build_t5(vocabulary_size: int) -> T5EncoderModel:
    """T5's encoder in the gated v1.1 form that SD3 and FLUX use."""
    config = T5Config(
        vocab_size=vocabulary_size,
        d_model=T5_WIDTH,
        d_kv=32,
        d_ff=2 * T5_WIDTH,
        num_layers=3,
        num_heads=4,
        relative_attention_num_buckets=32,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    return T5EncoderModel(config)


def build_image_encoder() -> CLIPVisionModelWithProjection:
    """The image encoder of IP-Adapters: one vector of 32 values an image."""
    config = CLIPVisionConfig(**_VISION, patch_size=_CLIP_PATCH_PIXELS, projection_dim=32)
    return CLIPVisionModelWithProjection(config)


def build_siglip() -> SiglipVisionModel:
    """The image encoder of Redux: a vector of each of 16 patches."""
    return SiglipVisionModel(SiglipVisionConfig(**_VISION, patch_size=_SIGLIP_PATCH_PIXELS, vision_use_head=False))


def build_autoencoder(latent_channels: int) -> AutoencoderKL:
    """8× down. One norm group: with few channels, more groups erase the colour of a flat area.

    The 16-channel form has no quant convolutions and a shift, as SD3's and FLUX's have.
    """
    quantised = latent_channels == 4
    settings: dict[str, Any] = {} if quantised else {"shift_factor": 0.0}
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * AUTOENCODER_LEVELS,
        up_block_types=("UpDecoderBlock2D",) * AUTOENCODER_LEVELS,
        block_out_channels=_AUTOENCODER_CHANNELS,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=1,
        sample_size=64,
        scaling_factor=0.13025 if quantised else 1.0,
        force_upcast=False,
        use_quant_conv=quantised,
        use_post_quant_conv=quantised,
        **settings,
    )


_UNET_LEVELS = len(_UNET_CHANNELS)
#: Both UNets have cross-attention at both levels.
_UNET: dict[str, Any] = {
    "sample_size": LATENT_EDGE,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": _UNET_CHANNELS,
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",) * _UNET_LEVELS,
    "up_block_types": ("CrossAttnUpBlock2D",) * _UNET_LEVELS,
    "transformer_layers_per_block": [1] * _UNET_LEVELS,
    "attention_head_dim": [channels // 32 for channels in _UNET_CHANNELS],  # diffusers means the heads' number
    "norm_num_groups": 8,
    "resnet_time_scale_shift": "scale_shift",
}


def build_unet() -> UNet2DConditionModel:
    """SDXL's UNet: text and size conditions."""
    return UNet2DConditionModel(
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=CLIP_WIDTH + 6 * 8,
        cross_attention_dim=2 * CLIP_WIDTH,
        **_UNET,
    )


def build_sd15_unet() -> UNet2DConditionModel:
    """Stable Diffusion 1's UNet: one CLIP's states, and convolutions around its transformers."""
    return UNet2DConditionModel(use_linear_projection=False, cross_attention_dim=CLIP_WIDTH, **_UNET)


_SD3: dict[str, Any] = {
    "sample_size": LATENT_EDGE,
    "patch_size": 1,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": T5_WIDTH,
    "caption_projection_dim": 128,
    "pooled_projection_dim": 2 * CLIP_WIDTH,
    "pos_embed_max_size": 32,  # images up to 256×256
}


def build_sd3() -> SD3Transformer2DModel:
    """Four joint blocks; an image of 64×64 is 64 tokens; sixteen of 2×2 learn far slower."""
    return SD3Transformer2DModel(num_layers=4, **_SD3)


_FLUX: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": T5_WIDTH,
    "pooled_projection_dim": CLIP_WIDTH,
    "guidance_embeds": True,
    "axes_dims_rope": (8, 12, 12),
}


def build_flux() -> FluxTransformer2DModel:
    """Two double and four single blocks, with the guidance embedding of FLUX.1 [dev]."""
    return FluxTransformer2DModel(num_layers=2, num_single_layers=4, **_FLUX)


def build_euler() -> EulerDiscreteScheduler:
    """The schedule of Stable Diffusion 1 and SDXL, with v-prediction.

    The last three are unknown to Euler but read by the schedulers a user may swap in: without
    clip_sample=False, DDIM clips the latents and every background goes wrong.
    """
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        timestep_spacing="leading",
        steps_offset=1,
        interpolation_type="linear",
    )
    scheduler.register_to_config(clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
    return scheduler


def build_flow_euler(dynamic_shifting: bool) -> FlowMatchEulerDiscreteScheduler:
    """FLUX shifts by the number of tokens; SD3 by a constant, small here, where images are small."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=1.0 if dynamic_shifting else 1.5, use_dynamic_shifting=dynamic_shifting
    )


def soften_unet(unet: UNet2DConditionModel) -> None:
    """Small residual branches at the start."""
    with torch.no_grad():
        quiet = [module.conv2 for module in unet.modules() if isinstance(module, ResnetBlock2D)]
        quiet += [module.proj_out for module in unet.modules() if isinstance(module, Transformer2DModel)]
        for layer in (*quiet, unet.conv_out):
            layer.weight.mul_(0.1)
            layer.bias.zero_()


def soften_transformer(model: torch.nn.Module) -> None:
    """adaLN-zero, as DiT and FLUX are trained: every block starts as the identity."""
    with torch.no_grad():
        for name, module in model.named_modules():
            modulation = name.endswith("linear") and "norm" in name
            if isinstance(module, torch.nn.Linear) and (modulation or name == "proj_out"):
                module.weight.zero_()
                module.bias.zero_()
