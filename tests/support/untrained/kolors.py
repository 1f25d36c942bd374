"""Kolors, small and untrained, and the calls of diffusers that its images equal."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import diffusers
import sentencepiece
import torch
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer

from contracts.catalogue.families import Mode
from tests.support.bare_cases import SIZE, START, Case
from tests.support.untrained_parts import WIDTH, seeded, unet, vae


def _glm_tokenizer() -> Any:
    """ChatGLM's, on a small model of sentencepiece."""
    file = Path(tempfile.mkdtemp()) / "tokenizer.model"
    with file.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a red circle on a blue square", "the green photo of a cat"] * 20),
            model_writer=writer, vocab_size=40, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    return ChatGLMTokenizer(str(file))


def pipeline() -> Any:
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


def _case(mode: Mode, name: str, **call: Any) -> Case:
    both: dict[str, Any] = {"guidance_scale": 4.0, "original_size": (64, 48)}
    fields = {**both, **({"strength": 0.8} if mode is Mode.IMG2IMG else SIZE)}
    return Case("kolors", mode, f"Kolors{name}Pipeline", {**both, **call}, fields)


CASES = [
    _case(Mode.TXT2IMG, "", **SIZE),
    _case(Mode.IMG2IMG, "Img2Img", **START),
]  # fmt: skip
