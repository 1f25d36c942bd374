"""Small untrained checkpoints of families whose prompts a language model reads; `untrained.py` lists them."""

from __future__ import annotations

import json
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from tests.support.untrained_parts import WIDTH, seeded, stirred, vae

#: Qwen's pattern of words; see `Qwen2Tokenizer` of transformers.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_tokenizer(*templates: str) -> Any:
    """Qwen's byte-pair encoding, trained until the words of its templates are whole tokens.

    The Qwen-Image pipelines cut a fixed number of tokens off the front, those of their template.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1500, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(
        [*templates, "system user assistant a red green blue circle square on the"] * 2, trainer
    )
    trained = json.loads(bpe.to_str())["model"]
    vocabulary = dict(trained["vocab"])
    for token in ("<|endoftext|>", *_SPECIAL):
        vocabulary[token] = len(vocabulary)
    return transformers.Qwen2Tokenizer(
        vocab=vocabulary, merges=[tuple(pair) for pair in trained["merges"]],
        additional_special_tokens=list(_SPECIAL), chat_template=_CHAT, model_max_length=2048,
    )  # fmt: skip


def decoder_options(tokenizer: Any) -> dict[str, Any]:
    """Options of a language model with three layers."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": WIDTH // 4,
        "max_position_embeddings": 4096,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip


def z_image() -> Any:
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


def z_image_controlnet(transformer: Any) -> Any:
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
