"""Small untrained checkpoints of families without a trained one in `models/`: the exact classes, random weights.

Written once a session; each has a LoRA and, where the family takes ControlNets, one that surely changes the image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import sentencepiece
import torch
import transformers
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer
from safetensors.torch import save_file
from tokenizers import pre_tokenizers

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.untrained_deepfloyd import deepfloyd
from tests.support.untrained_dit import dit, write_as_published
from tests.support.untrained_flux2 import flux2
from tests.support.untrained_llm import (
    lumina2,
    ovis_image,
    qwen_image,
    qwen_image_controlnet,
    sana,
    sana_controlnet,
    z_image,
    z_image_controlnet,
)
from tests.support.untrained_parts import (
    SIDE,
    WIDTH,
    seeded,
    stirred,
    t5_text,
    t5_tokenizer,
    unet,
    vae,
)
from tests.support.weights import random_adapter


def with_untrained(catalogue: Catalogue, folder: Path) -> Catalogue:
    """Return the catalogue with a checkpoint, a LoRA and a ControlNet of each of these families."""
    models, loras, controlnets = [], [], []
    for family, make in UNTRAINED.items():
        pipeline = make()
        pipeline.save_pretrained(folder / f"tiny-{family}")
        if FAMILIES[family].prompted_by_class:
            write_as_published(folder / f"tiny-{family}")
        models.append(
            ModelSpec(
                id=f"tiny-{family}",
                family=family,
                source=str(folder / f"tiny-{family}"),
                defaults={"width": SIDE, "height": SIDE, "num_inference_steps": 3},
                max_clip_skip=1,
            )
        )
        denoiser = "unet" if "unet" in pipeline.components else "transformer"
        if FAMILIES[family].denoiser_layers:
            tensors = random_adapter(pipeline.components[denoiser], denoiser, rank=4, seed=1)
            save_file(tensors, folder / f"tiny-{family}.safetensors")
            loras.append(
                LoraSpec(id=f"{family}-lora", family=family, source=str(folder / f"tiny-{family}.safetensors"))
            )
        if family in _CONTROLNETS:
            _CONTROLNETS[family](pipeline.components[denoiser]).save_pretrained(folder / f"tiny-{family}-hint")
            controlnets.append(
                ControlNetSpec(id=f"{family}-hint", family=family, source=str(folder / f"tiny-{family}-hint"))
            )
        if FAMILIES[family].inpaint_control_only:
            mask = str(folder / f"tiny-{family}-mask")
            _CONTROLNETS[family](pipeline.components[denoiser], extra_condition_channels=4).save_pretrained(mask)
            controlnets.append(ControlNetSpec(id=f"{family}-mask", family=family, source=mask, kind="inpaint"))
    limited = with_checkpoint_limits(catalogue.model_copy(update={"models": tuple(models)}))
    return catalogue.model_copy(
        update={
            "models": (*catalogue.models, *limited.models),
            "loras": (*catalogue.loras, *loras),
            "controlnets": (*catalogue.controlnets, *controlnets),
        }
    )


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


def sd15(**unet_options: Any) -> Any:
    """Stable Diffusion 1.5, with the scheduler that it was published with."""
    tokenizer = clip_tokenizer()
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    return diffusers.StableDiffusionPipeline(
        tokenizer=tokenizer, text_encoder=clip_text(tokenizer), unet=unet(**unet_options), vae=vae(),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _glm_tokenizer() -> Any:
    """ChatGLM's, on a small model of sentencepiece."""
    file = Path(tempfile.mkdtemp()) / "tokenizer.model"
    with file.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a red circle on a blue square", "the green photo of a cat"] * 20),
            model_writer=writer, vocab_size=40, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    return ChatGLMTokenizer(str(file))


def kolors() -> Any:
    """Kolors with two layers in its language model."""
    tokenizer = _glm_tokenizer()
    config = ChatGLMConfig(
        num_layers=2, padded_vocab_size=tokenizer.vocab_size, hidden_size=WIDTH, ffn_hidden_size=2 * WIDTH,
        kv_channels=8, num_attention_heads=4, seq_length=256, multi_query_attention=True,
        multi_query_group_num=2, add_qkv_bias=True, original_rope=True,
    )  # fmt: skip
    encoder = seeded(lambda: ChatGLMModel(config))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # the class leaves its weights uninitialised
        for parameter in encoder.parameters():
            parameter.normal_(std=0.1, generator=generator) if parameter.ndim > 1 else parameter.fill_(1.0)
    own = unet(
        addition_embed_type="text_time", addition_time_embed_dim=8, use_linear_projection=True,
        projection_class_embeddings_input_dim=WIDTH + 6 * 8, transformer_layers_per_block=[1, 1],
        encoder_hid_dim_type="text_proj", encoder_hid_dim=WIDTH,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.014, beta_schedule="scaled_linear", num_train_timesteps=1100, steps_offset=1
    )
    return diffusers.KolorsPipeline(
        tokenizer=tokenizer, text_encoder=encoder, unet=own, vae=vae(), scheduler=scheduler
    )


def _unet_controlnet(denoiser: Any) -> Any:
    return stirred(
        diffusers.ControlNetModel.from_unet(denoiser, conditioning_embedding_out_channels=(8, 8, 8, 16))
    )


def pixart() -> Any:
    """PixArt-Σ; predicts the noise's variance, too."""
    tokenizer = t5_tokenizer(300)
    transformer = seeded(
        lambda: diffusers.PixArtTransformer2DModel(
            num_attention_heads=3, attention_head_dim=8, num_layers=2, cross_attention_dim=24, sample_size=8,
            caption_channels=WIDTH,
        )
    )  # fmt: skip
    return diffusers.PixArtSigmaPipeline(
        tokenizer=tokenizer, text_encoder=t5_text(tokenizer), vae=vae(), transformer=stirred(transformer),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )  # fmt: skip


def bert_tokenizer() -> Any:
    """BERT's word pieces over printable ASCII."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=77)


_HUNYUANDIT: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "patch_size": 2, "sample_size": 8,
    "hidden_size": 16, "cross_attention_dim": WIDTH, "cross_attention_dim_t5": WIDTH, "pooled_projection_dim": 16,
    "use_style_cond_and_image_meta_size": False,
}  # fmt: skip


def hunyuandit() -> Any:
    """HunyuanDiT 1.2 with four blocks."""
    first, second = bert_tokenizer(), t5_tokenizer(256)
    bert = transformers.BertConfig(
        vocab_size=len(first), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=2 * WIDTH,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.018, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, steps_offset=1,
    )  # fmt: skip
    return diffusers.HunyuanDiTPipeline(
        tokenizer=first, text_encoder=seeded(lambda: transformers.BertModel(bert)), tokenizer_2=second,
        text_encoder_2=t5_text(second), vae=vae(), scheduler=scheduler, safety_checker=None,
        transformer=seeded(lambda: diffusers.HunyuanDiT2DModel(num_layers=4, **_HUNYUANDIT)),
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _hunyuandit_controlnet(transformer: Any) -> Any:
    del transformer
    return stirred(seeded(lambda: diffusers.HunyuanDiT2DControlNetModel(transformer_num_layers=4, **_HUNYUANDIT)))


def chroma() -> Any:
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


def auraflow() -> Any:
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


UNTRAINED: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "sd15": sd15,
        "pixart": pixart,
        "chroma": chroma,
        "z-image": z_image,
        "qwen-image": qwen_image,
        "flux2": flux2,
        "lumina2": lumina2,
        "sana": sana,
        "hunyuandit": hunyuandit,
        "kolors": kolors,
        "ovis-image": ovis_image,
        "deepfloyd": deepfloyd,
        "dit": dit,
        "auraflow": auraflow,
    }
)
_CONTROLNETS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "sd15": _unet_controlnet,
        "z-image": z_image_controlnet,
        "qwen-image": qwen_image_controlnet,
        "sana": sana_controlnet,
        "hunyuandit": _hunyuandit_controlnet,
    }
)
