"""Words in a prompt that stand for the vectors of a textual inversion: found, and tokenized.

A word is found as a whole, whatever its case, with or without angle brackets: `bad-hands` and `<Bad-Hands>`, but
not the `bad-hands` in `bad-hands-5`. Knows no tokenizer and no file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from contracts.prompts.tokens import Tokenize


def words_in(text: str, words: Collection[str]) -> list[str]:
    """Return those of some words that a text has, in its order, without repetition."""
    if not words:
        return []
    known = {word.casefold(): word for word in words}
    found = (_word_of(match) for match in _pattern(frozenset(known)).finditer(text))
    return list(dict.fromkeys(known[word] for word in found))


def with_words(tokenize: Tokenize, words: Mapping[str, Sequence[int]]) -> Tokenize:
    """Return a tokenizer that gives these tokens for a word, and tokenizes the texts between them apart."""
    if not words:
        return tokenize
    known = {word.casefold(): tokens for word, tokens in words.items()}
    pattern = _pattern(frozenset(known))

    def tokenize_with_words(text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        begin = 0
        for match in pattern.finditer(text):
            found += [(token, begin + end) for token, end in tokenize(text[begin : match.start()])]
            found += [(token, match.end()) for token in known[_word_of(match)]]
            begin = match.end()
        return found + [(token, begin + end) for token, end in tokenize(text[begin:])]

    return tokenize_with_words


def _word_of(match: re.Match[str]) -> str:
    return (match["bracketed"] or match["bare"]).casefold()


@lru_cache(maxsize=256)
def _pattern(words: frozenset[str]) -> re.Pattern[str]:
    """The longest of the words that begin at one place."""
    either = "|".join(map(re.escape, sorted(words, key=lambda word: (-len(word), word))))
    return re.compile(rf"<(?P<bracketed>{either})>|(?<![\w-])(?P<bare>{either})(?![\w-])", re.IGNORECASE)
