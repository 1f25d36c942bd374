"""How a prompt's tokens are divided among the windows of an encoder, and how many each encoder reads.

The same for the API, which counts, and for the workers, which encode. Knows no tokenizer: the caller passes one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate

from pydantic import BaseModel, ConfigDict, Field

from contracts.catalogue.families import LongPrompt, TextEncoder
from contracts.prompts.syntax import Chunks, joined

#: Text tokens of one window of CLIP, beside those for its start and end.
WINDOW_TOKENS = 75
#: Windows of one prompt at most; more are refused.
MAX_WINDOWS = 32

#: Text -> (token, end of its characters in the text) for each token, without special tokens.
Tokenize = Callable[[str], Sequence[tuple[int, int]]]
#: A token and its weight.
WeightedToken = tuple[int, float]


class TokenUse(BaseModel):
    """Tokens of a prompt's text for one encoder, without those for start, end and padding."""

    model_config = ConfigDict(frozen=True)

    given: int = Field(description="Tokens of the whole text.")
    used: int = Field(description="Tokens that the encoder reads, from the beginning.")


def plain_chunks(text: str) -> Chunks:
    """The chunks of a text in which nothing is weighted."""
    return (((text, 1.0),),)


def weighted_tokens(chunk: Sequence[tuple[str, float]], tokenize: Tokenize) -> list[WeightedToken]:
    """Return the tokens of one chunk. A token that spans two weights has that of its last character."""
    ends = list(accumulate(len(text) for text, _ in chunk))
    weights = [weight for _, weight in chunk]
    tokens = tokenize("".join(text for text, _ in chunk))
    return [(token, weights[min(bisect_left(ends, end), len(ends) - 1)]) for token, end in tokens]


def windows_of(chunks: Chunks, tokenize: Tokenize) -> list[list[WeightedToken]]:
    """Return the tokens of each window of CLIP: each chunk starts a new one, and one window holds 75."""
    windows = []
    for chunk in chunks:
        tokens = weighted_tokens(chunk, tokenize)
        windows += [
            tokens[start : start + WINDOW_TOKENS] for start in range(0, max(1, len(tokens)), WINDOW_TOKENS)
        ]
    return windows


def sequence_of(chunks: Chunks, tokenize: Tokenize, max_sequence_length: int) -> list[WeightedToken]:
    """Return the tokens that T5 reads, one of whose places its end takes. A BREAK is a space there."""
    spans: list[tuple[str, float]] = []
    for index, chunk in enumerate(chunks):
        spans += [(" ", 1.0)] * (index > 0)
        spans += chunk
    return weighted_tokens(spans, tokenize)[: max(0, max_sequence_length - 1)]


def token_use(
    encoder: TextEncoder,
    chunks: Chunks,
    tokenize: Tokenize,
    *,
    long_prompt: LongPrompt,
    max_sequence_length: int | None,
) -> TokenUse:
    """Return how much of a prompt one encoder reads."""
    if encoder.kind != "clip":
        given = len(tokenize(joined(chunks)))
        return TokenUse(given=given, used=min(given, encoder.text_tokens(max_sequence_length)))
    sizes = [len(window) for window in windows_of(chunks, tokenize)]
    reads_all = long_prompt == "chunk" and not encoder.pooled_only
    return TokenUse(given=sum(sizes), used=sum(sizes) if reads_all else sizes[0])


def max_windows(texts_bytes: Sequence[int]) -> int:
    """An upper bound of the windows of a prompt from the UTF-8 bytes of its chunks: a token has at least one."""
    return min(MAX_WINDOWS, sum(max(1, -(-size // WINDOW_TOKENS)) for size in texts_bytes))
