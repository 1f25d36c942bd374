"""Tokenizers and language models for the small untrained checkpoints whose prompts one of these reads."""

from __future__ import annotations

import json
import re
from typing import Any

import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from tests.support.untrained_parts import WIDTH, seeded

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


def gemma_tokenizer(*texts: str) -> Any:
    """Gemma's byte-pair encoding over printable ASCII; words of these texts, behind a space, are whole tokens."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n", *(chr(code) for code in range(33, 127))]
    words = {f"▁{word}" for text in texts for word in re.findall(r"(?<= )[A-Za-z]+", text)}
    beginnings = {word[:end] for word in words for end in range(2, len(word) + 1)}
    longer = sorted(beginnings, key=lambda one: (len(one), one))
    vocabulary = {token: index for index, token in enumerate([*tokens, *longer])}
    return transformers.GemmaTokenizer(vocab=vocabulary, merges=[(one[:-1], one[-1]) for one in longer])


def gemma_text(tokenizer: Any) -> Any:
    """Gemma 2 with three layers."""
    config = transformers.Gemma2Config(**decoder_options(tokenizer))
    return seeded(lambda: transformers.Gemma2Model(config))
