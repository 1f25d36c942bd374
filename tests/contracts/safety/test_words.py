"""The word list: whole words and phrases, however they are written."""

from __future__ import annotations

import pytest

from contracts.safety.words import WordList

WORDS = WordList(["star", "Red  Cross", "naïve", "", "…"])


@pytest.mark.parametrize(
    "prompt",
    [
        "a red star",
        "STAR",
        "star-shaped",
        "a_star_",
        "(star:1.3)",
        "s\u200bt\u00adar",  # invisible characters
        "ｓｔａｒ",  # full-width
        "stár",
        "a red, cross",
        "red\ncross",
        "naive",
    ],
)
def test_words_and_phrases_are_found_however_they_are_written(prompt: str) -> None:
    assert WORDS.score(prompt) == 1


@pytest.mark.parametrize("prompt", ["", "a starling", "restart", "red crossing", "cross red", "..."])
def test_parts_of_words_are_not(prompt: str) -> None:
    assert WORDS.score(prompt) == 0
