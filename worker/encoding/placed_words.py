"""Makes textual inversions act in place of their words in a prompt: written into the embedding layer's output.

A word's tokens have numbers behind any vocabulary. While a text encoder runs, hooks hide these numbers from it,
and write the vectors into their places. No tokenizer and no table grows, as they do in diffusers'
`load_textual_inversion` (0.42), whose new tokens also mislead encoders that look for the end of a text by its
number. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from transformers import BatchEncoding

from contracts.prompts.trigger_words import with_words, words_in
from worker.adapters.inversions import LoadedInversion
from worker.encoding.windows import tokenize_by

#: The first number of a vector; vocabularies of CLIP have fifty thousand.
FIRST = 1 << 24
#: What the encoder is given in its place: any token before that of the end.
_ANY_TOKEN = 0


class PlacedWords:
    """The textual inversions of one job."""

    def __init__(self, inversions: Sequence[LoadedInversion] = ()) -> None:
        self._inversions = inversions
        self._tokens: dict[str, range] = {}
        begin = FIRST
        for inversion in inversions:
            end = begin + inversion.count
            self._tokens |= {word: range(begin, end) for word in inversion.words if word not in self._tokens}
            begin = end

    @cached_property
    def _tables(self) -> Mapping[str, torch.Tensor]:
        """Text encoder -> all vectors, by their numbers."""
        names = self._inversions[0].vectors if self._inversions else ()
        return {name: torch.cat([inversion.vectors[name] for inversion in self._inversions]) for name in names}

    def key(self, texts: Iterable[str | None]) -> tuple[tuple[str, str], ...]:
        """Return the words that these texts have, each with the content hash of its file."""
        owners = {word: one.weights.sha256 for one in self._inversions for word in one.words}
        words = dict.fromkeys(word for text in texts for word in words_in(text or "", owners))
        return tuple((word.casefold(), owners[word]) for word in words)

    def tokenizers(self, pipeline: Any) -> dict[str, Any]:
        """Return component -> what takes the tokenizer's place in a pipeline; empty where there are no words."""
        names = [name.replace("text_encoder", "tokenizer") for name in self._tables]
        return {name: WordTokenizer(getattr(pipeline, name), self._tokens) for name in names}

    @contextmanager
    def written_in(self, pipeline: Any) -> Iterator[None]:
        """Inside, the text encoders of a pipeline read the vectors in the words' places."""
        with ExitStack() as hooks:
            for name, table in self._tables.items():
                encoder, places = getattr(pipeline, name), _Places(table)
                hooks.callback(encoder.register_forward_pre_hook(places.hide, with_kwargs=True).remove)
                hooks.callback(encoder.get_input_embeddings().register_forward_hook(places.write).remove)
            yield


class _Places:
    """The places of vectors in one call of a text encoder."""

    def __init__(self, table: torch.Tensor) -> None:
        self._table = table
        self._ids: torch.Tensor | None = None

    def hide(self, encoder: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        """Pre-hook of the encoder: give it a token that it knows."""
        del encoder
        ids = args[0] if args else options["input_ids"]
        self._ids = ids
        known = ids.masked_fill(ids >= FIRST, _ANY_TOKEN)
        return ((known, *args[1:]), options) if args else ((), {**options, "input_ids": known})

    def write(self, layer: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        """Forward hook of the embedding layer."""
        del layer, args
        ids, self._ids = self._ids, None
        if ids is None:
            raise RuntimeError("the embedding layer was called outside of its text encoder")
        own = ids >= FIRST
        written = output.clone()
        written[own] = self._table.to(output)[(ids[own] - FIRST).to(output.device)]
        return written


class WordTokenizer:
    """Stand-in for the tokenizer of a CLIP encoder; all but its call is the tokenizer's own."""

    def __init__(self, tokenizer: Any, words: Mapping[str, Sequence[int]]) -> None:
        self._tokenizer = tokenizer
        self._tokenize = with_words(tokenize_by(tokenizer), words)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(
        self,
        text: str | list[str],
        *,
        add_special_tokens: bool = True,
        padding: str | bool = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        **_: Any,
    ) -> BatchEncoding:
        """Tokenize a text into lists with the ends of tokens, or texts into padded rows of a tensor."""
        if not add_special_tokens:
            tokens = self._tokenize(str(text))
            return BatchEncoding(
                {"input_ids": [token for token, _ in tokens], "offset_mapping": [(0, end) for _, end in tokens]}
            )
        texts = [text] if isinstance(text, str) else text
        own = self._tokenizer
        length = max_length or own.model_max_length
        rows = [[token for token, _ in self._tokenize(one)] for one in texts]
        rows = [row[: length - 2] if truncation else row for row in rows]
        rows = [[own.bos_token_id, *row, own.eos_token_id] for row in rows]
        width = length if padding == "max_length" else max(map(len, rows))
        padded = [row + [own.pad_token_id] * (width - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return BatchEncoding({"input_ids": padded, "attention_mask": mask}, tensor_type=return_tensors)
