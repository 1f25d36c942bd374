"""Prompts become embeddings here, apart from the pipeline call that paints; a bytes-bounded cache remembers them.

Each text is encoded by itself, whatever batch it comes in, so an embedding is the same bytes whether it was
computed or remembered, alone or in company. Knows nothing of where the encoders live.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from contracts.queue.records import CacheUse
from worker.adapters.active import AdapterSet
from worker.encoding.cache import Embedding, EmbeddingCache
from worker.encoding.cpu_t5 import InTurn
from worker.families import Call, FamilyCode, Wording


@dataclass
class PromptEncoder:
    """The encoders of one model, as a batch uses them.

    Attributes:
        pipeline: whose `encode_prompt` is called.
        device, dtype: of the embeddings, wherever and in whatever dtype an encoder computes.
        state: what shapes an embedding beside the wording and the adapters: content hash of the weights, dtypes,
            which encoders take part.
        sets: the adapters of each image.
        active: has adapters act on the text encoders.
        t5: stands in the pipeline for a T5 that works on the CPU; None where it does not.
        hits, misses: look-ups of this batch; one for each distinct wording under the same adapters.
    """

    pipeline: Any
    family: FamilyCode
    device: torch.device
    dtype: torch.dtype
    cache: EmbeddingCache
    state: tuple[object, ...]
    sets: Sequence[AdapterSet]
    active: Callable[[AdapterSet], AbstractContextManager[None]]
    t5: InTurn | None = None
    hits: int = 0
    misses: int = 0

    def arguments(self, call: Call) -> dict[str, torch.Tensor]:
        """The embeddings of a call, one row an image, as its pipeline takes them."""
        encoding = self.family.encoding
        found = self._rows(encoding.wordings(call))
        arguments = {"prompt_embeds": found[0], "pooled_prompt_embeds": found[1]}
        negatives = encoding.negative_wordings(call, self.pipeline.config)
        if negatives is not None:
            found = self._rows(negatives)
            arguments |= {"negative_prompt_embeds": found[0], "negative_pooled_prompt_embeds": found[1]}
        return arguments

    def knows(self, wording: Wording) -> bool:
        """Whether its embedding without adapters is remembered; counts nothing."""
        return self.cache.look(self._key(AdapterSet(), wording)) is not None

    @property
    def use(self) -> CacheUse:
        """The look-ups, for the receipt."""
        return CacheUse(hits=self.hits, misses=self.misses, ahead=0 if self.t5 is None else self.t5.count)

    def _rows(self, wordings: Sequence[Wording]) -> tuple[torch.Tensor, torch.Tensor]:
        asked = [(one.in_texts, wording) for one, wording in zip(self.sets, wordings, strict=True)]
        keys = [self._key(*one) for one in asked]
        known = {key: self._one(key, *one) for key, one in dict(zip(keys, asked, strict=True)).items()}
        return (
            torch.cat([known[key].sequence for key in keys]).to(self.device),
            torch.cat([known[key].pooled for key in keys]).to(self.device),
        )

    def _key(self, adapters: AdapterSet, wording: Wording) -> tuple[object, ...]:
        return (self.state, adapters.key, tuple(sorted(wording.items())))

    def _one(self, key: object, adapters: AdapterSet, wording: Wording) -> Embedding:
        found = self.cache.find(key)
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        with self.active(adapters):
            embedding = self._encode(wording)
        self.cache.keep(key, embedding)
        return embedding

    def _encode(self, wording: Wording) -> Embedding:
        encoding = self.family.encoding
        with torch.no_grad():
            answer = self.pipeline.encode_prompt(**_as_lists(wording), **encoding.fixed, device=self.device)
        sequence, pooled = (answer[place].to("cpu", self.dtype) for place in encoding.places)
        return Embedding(sequence, pooled)


def _as_lists(wording: Wording) -> Wording:
    """Diffusers takes an empty text for none at all, but not a list of one."""
    return {name: [value] if isinstance(value, str) else value for name, value in wording.items()}
