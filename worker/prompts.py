"""Prompts become embeddings here, apart from the pipeline call that paints; a bytes-bounded cache remembers them.

Each text is encoded by itself, whatever batch it comes in, so an embedding is the same bytes whether it was
computed or remembered, alone or in company. Knows nothing of where the encoders live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from contracts.records import CacheUse
from worker.embeddings import Embedding, EmbeddingCache
from worker.families import Call, FamilyCode, Wording
from worker.host_t5 import InTurn


@dataclass
class Encoder:
    """The encoders of one model, as a batch uses them.

    Attributes:
        pipeline: whose `encode_prompt` is called.
        device, dtype: of the embeddings, wherever and in whatever dtype an encoder computes.
        state: everything beside the wording that shapes an embedding: content hash of the weights, dtypes,
            which encoders take part, the adapters in them.
        t5: stands in the pipeline for a T5 that works on the CPU; None where it does not.
        hits, misses: look-ups of this batch; one for each distinct wording.
    """

    pipeline: Any
    family: FamilyCode
    device: torch.device
    dtype: torch.dtype
    cache: EmbeddingCache
    state: tuple[object, ...]
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
        """Whether its embedding is remembered; counts nothing."""
        return self.cache.look((self.state, _key(wording))) is not None

    @property
    def use(self) -> CacheUse:
        """The look-ups, for the receipt."""
        return CacheUse(hits=self.hits, misses=self.misses, ahead=0 if self.t5 is None else self.t5.count)

    def _rows(self, wordings: Sequence[Wording]) -> tuple[torch.Tensor, torch.Tensor]:
        distinct = {_key(wording): wording for wording in wordings}
        known = {key: self._one(key, wording) for key, wording in distinct.items()}
        rows = [known[_key(wording)] for wording in wordings]
        return (
            torch.cat([row.sequence for row in rows]).to(self.device),
            torch.cat([row.pooled for row in rows]).to(self.device),
        )

    def _one(self, key: tuple[object, ...], wording: Wording) -> Embedding:
        found = self.cache.find((self.state, key))
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        embedding = self._encode(wording)
        self.cache.keep((self.state, key), embedding)
        return embedding

    def _encode(self, wording: Wording) -> Embedding:
        encoding = self.family.encoding
        with torch.no_grad():
            answer = self.pipeline.encode_prompt(**_as_lists(wording), **encoding.fixed, device=self.device)
        sequence, pooled = (answer[place].to("cpu", self.dtype) for place in encoding.places)
        return Embedding(sequence, pooled)


def _key(wording: Wording) -> tuple[object, ...]:
    return tuple(sorted(wording.items()))


def _as_lists(wording: Wording) -> Wording:
    """Diffusers takes an empty text for none at all, but not a list of one."""
    return {name: [value] if isinstance(value, str) else value for name, value in wording.items()}
