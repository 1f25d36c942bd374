"""Filters for messages of our dependencies that are understood and of no use to an operator, each by name."""

from __future__ import annotations

import logging
import re
import warnings

import diffusers
import transformers

#: How each Python warning begins.
_WARNINGS = (
    r"`FluxPosEmbed` is deprecated",  # diffusers' FLUX ControlNet imports it from the old place
    r"__array__ implementation doesn't accept a copy keyword",  # diffusers' Euler scheduler with numpy 2
    r"Already found a `peft_config` attribute",  # peft, for each LoRA after a model's first
)
#: Part of each line in the libraries' logs.
_LOG_LINES = (
    r"requires torchvision \(not installed\)",  # the fallback to Pillow gives the same result
    r"should be kept in float32: \[\]",  # an empty list, for every component of a single file
    r"prompt_embeds_mask` is not provided",  # Qwen's prompts have no padding
    r"No LoRA keys associated to CLIPText",  # most LoRAs leave the text encoders alone; `adapters.reader` checks
    r"Token indices sequence length is longer than",  # long prompts are divided among windows
    r"We cannot verify whether it has the correct type",  # Kolors' language model, which is checked here
    r"Guiders are currently an experimental feature",  # its version is pinned
    r"for integer quantization, but only bfloat16 is supported",  # weights of int8 compute in any dtype
    r"part of your input was truncated because",  # it quotes the end of a client's prompt, after any encoder
)


def silence_known_warnings() -> None:
    """Keep these messages and the loaders' progress bars out of this process' log. All others stay."""
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
    for library in ("diffusers", "transformers"):
        for handler in logging.getLogger(library).handlers:
            handler.addFilter(_is_unknown)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


_KNOWN = re.compile("|".join(_LOG_LINES))


def _is_unknown(record: logging.LogRecord) -> bool:
    return _KNOWN.search(record.getMessage()) is None
