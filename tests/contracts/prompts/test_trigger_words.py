"""Words that stand for vectors: which places of a text are one, and the tokens around them."""

from __future__ import annotations

import pytest

from contracts.prompts.trigger_words import with_words, words_in


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a bad-hands, blurry", ["bad-hands"]),
        ("BAD-HANDS", ["bad-hands"]),
        ("<Bad-Hands>", ["bad-hands"]),
        ("(bad-hands:1.2)", ["bad-hands"]),
        ("bad-hands.", ["bad-hands"]),
        ("bad-hands-5", ["bad-hands-5"]),
        ("my-bad-hands and bad-hands2", []),
        ("bad hands", []),
        ("<x><x> bad-hands", ["x", "bad-hands"]),
    ],
)
def test_a_word_is_found_where_it_stands_by_itself(text: str, found: list[str]) -> None:
    assert words_in(text, ["bad-hands", "bad-hands-5", "x"]) == found


def test_the_texts_between_words_are_tokenized_apart_and_ends_are_those_of_the_whole_text() -> None:
    seen: list[str] = []

    def tokenize(text: str) -> list[tuple[int, int]]:
        seen.append(text)
        return [(1, len(text))] if text.strip() else []

    tokens = with_words(tokenize, {"cat-toy": [7, 8]})("a <cat-toy> here cat-toy")
    assert seen == ["a ", " here ", ""]
    assert tokens == [(1, 2), (7, 11), (8, 11), (1, 17), (7, 24), (8, 24)]
