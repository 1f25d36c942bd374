"""Which messages of the libraries are kept from the log."""

from __future__ import annotations

import logging
import warnings

from worker.runtime.warnings import silence_known_warnings


def test_known_messages_are_silenced_and_others_stay() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        silence_known_warnings()
        warnings.warn("`FluxPosEmbed` is deprecated and will be removed", FutureWarning, stacklevel=1)
        warnings.warn("something new", FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["something new"]


def test_known_log_lines_are_silenced_and_others_stay() -> None:
    silence_known_warnings()
    handler = logging.getLogger("transformers").handlers[0]

    def passes(message: str) -> bool:
        return bool(handler.filter(logging.LogRecord("transformers", 30, "", 0, message, (), None)))

    assert not passes("`X` requires torchvision (not installed); falling back")
    for reason in ("CLIP can only handle sequences up to 77", "`max_sequence_length` is set to  77"):
        assert not passes(f"The following part of your input was truncated because {reason} tokens: zebra")
    assert passes("something new")
