"""Messages of our dependencies that are known, understood and of no use to an operator, each by name."""

from __future__ import annotations

import logging
import re
import warnings

import diffusers
import transformers

#: Start of a Python warning.
_WARNINGS = (
    r"`FluxPosEmbed` is deprecated",  # diffusers' own ControlNet still imports it from the old place
    r"__array__ implementation doesn't accept a copy keyword",  # its Euler scheduler with numpy 2
    r"Already found a `peft_config` attribute",  # peft, for every second adapter of a model
)
#: Part of a line in the libraries' logs.
_LOG_LINES = (
    r"requires torchvision \(not installed\)",  # the Pillow fallback does the same
    r"should be kept in float32: \[\]",  # a list of nothing, for every part of a single file
    r"No LoRA keys associated to CLIPText",  # most adapters leave the text encoders alone; `lora_files` checks
    r"input was truncated because CLIP can only handle",  # it would write a client's prompt into the log
)


def silence_known_warnings() -> None:
    """Keep them, and progress bars of the loaders, out of this process' log. All others stay."""
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
    for library in ("diffusers", "transformers"):
        for handler in logging.getLogger(library).handlers:
            handler.addFilter(_is_news)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


_KNOWN = re.compile("|".join(_LOG_LINES))


def _is_news(record: logging.LogRecord) -> bool:
    return _KNOWN.search(record.getMessage()) is None
