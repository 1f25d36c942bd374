"""A check of prompts by a list of words and phrases. Finds what is written plainly, and understands nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_SEPARATORS = re.compile(r"[\W_]+")


class WordList:
    """Whole words and phrases, in any case, with any punctuation between and invisible characters within them."""

    def __init__(self, words: Sequence[str]) -> None:
        self._phrases = [f" {phrase} " for phrase in map(_plain, words) if phrase]

    def score(self, prompt: str) -> float:
        """Return 1 if any of them is in the prompt, else 0."""
        text = f" {_plain(prompt)} "
        return float(any(phrase in text for phrase in self._phrases))


def _plain(text: str) -> str:
    """Words in lower case with one space between them, without accents, and full-width letters as plain ones."""
    letters = (
        letter
        for letter in unicodedata.normalize("NFKD", text)
        if unicodedata.category(letter) not in ("Cf", "Mn")
    )
    return _SEPARATORS.sub(" ", "".join(letters).casefold()).strip()
