"""T5 where it works on the CPU: for the batch in hand, or ahead for one that waits, one text at a time.

What was encoded ahead lies in the cache of embeddings until it is asked for, once. Its key is what the encoder is
given, so a wrong guess costs time and changes nothing. Knows neither the queue nor which texts come next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch

from worker.encoding.cache import Embedding, EmbeddingCache
from worker.families import FamilyCode, Wording


class CpuT5:
    """T5 of one model."""

    def __init__(
        self,
        name: str,
        family: FamilyCode,
        base: Any,
        pipeline_with: Callable[..., Any],
        cache: EmbeddingCache,
        weights: str,
        turn: threading.RLock,
    ) -> None:
        """For the thread that runs the jobs: it alone may touch the tokenizers of `base`.

        Args:
            name: the component's.
            base: the pipeline that has it.
            pipeline_with: makes one like `base` with other components under the given names.
            weights: content hash of the model.
            turn: held by whoever runs this T5 or moves it, and by whoever loads a model, which changes torch's
                defaults for a while.
        """
        self.module = getattr(base, name)
        self.cache = cache
        self.turn = turn
        self._weights = weights
        self._reads = family.encoding.texts[-1]
        self._ahead = _Ahead(self)
        tokenizer = name.replace("text_encoder", "tokenizer")
        # A tokenizer remembers how it padded last, so two threads must not share one.
        own = {name: self._ahead, tokenizer: deepcopy(getattr(base, tokenizer))}
        self._pipeline = pipeline_with(**own)

    def encode_ahead(self, wordings: Iterable[Wording], may: Callable[[], bool]) -> int:
        """Encode what T5 reads of these wordings, before each text asking whether it still may.

        Returns:
            How many texts were encoded; known ones are not.
        """
        before = self._ahead.count
        for text, length in dict.fromkeys(self._reading(wording) for wording in wordings):
            with self.turn, torch.no_grad():
                if not may():
                    break
                self._pipeline._get_t5_prompt_embeds(
                    [text], max_sequence_length=length, device=torch.device("cpu")
                )
        return self._ahead.count - before

    def stand_in(self) -> InTurn:
        """What a batch's pipeline has in the place of T5."""
        return InTurn(self)

    def key(self, ids: torch.Tensor, options: dict[str, Any]) -> tuple[object, ...]:
        """All that shapes the encoder's answer."""
        dtype = str(next(self.module.parameters()).dtype)
        given = (*ids.shape, ids.cpu().numpy().tobytes(), *sorted(options.items()))
        return ("t5", self._weights, dtype, *given)

    def _reading(self, wording: Wording) -> tuple[str, int]:
        """The text that T5 is given, the prompt where it has none of its own, and the number of tokens."""
        own = wording[self._reads]
        return wording["prompt"] if own is None else own, wording["max_sequence_length"]


class _StandIn:
    """Stands in a pipeline in T5's place; all but the call is T5's own.

    Attributes:
        count: texts that were encoded ahead: here, or for here.
    """

    def __init__(self, host: CpuT5) -> None:
        self.count = 0
        self._host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host.module, name)


class InTurn(_StandIn):
    """For the thread that runs the jobs."""

    def __call__(self, ids: torch.Tensor, **options: Any) -> Any:
        """As T5's own."""
        with self._host.turn:
            found = self._host.cache.take(self._host.key(ids, options))
            if found is None:
                return self._host.module(ids, **options)
        self.count += 1
        return (found.sequence,)


class _Ahead(_StandIn):
    """For the thread beside it."""

    def __call__(self, ids: torch.Tensor, **options: Any) -> tuple[torch.Tensor]:
        """Past T5's hooks: they belong to the batch that runs, count its memory and move its components."""
        key = self._host.key(ids, options)
        found = self._host.cache.look(key)
        if found is None:
            found = Embedding(self._host.module.forward(ids, **options)[0], torch.empty(0))
            self._host.cache.keep(key, found)
            self.count += 1
        return (found.sequence,)
