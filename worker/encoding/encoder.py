"""Encodes prompts into embeddings before the pipeline call, and caches them.

Each prompt is encoded alone, whatever images share its call, so an embedding has the same bytes computed or
cached, alone or with others. Knows nothing of where the encoders are placed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

from contracts.queue.records import CacheUse
from worker.adapters.cache import AdapterSet
from worker.encoding.cache import Embedding, EmbeddingCache
from worker.encoding.cpu_t5 import JobT5Proxy
from worker.families import DiffusersFamily, GenerationInputs, PromptArguments


@dataclass
class PromptEncoder:
    """The text encoders of one model for one pipeline call.

    Attributes:
        pipeline: its `encode_prompt` is called.
        device, dtype: of the embeddings, independent of where and in which dtype an encoder computes.
        state: what else determines an embedding: content hash of the weights, dtypes, which encoders are present.
        adapter_sets: the adapters of each image.
        activate: makes adapters act on the text encoders while inside.
        t5: the proxy for a T5 on the CPU; None if it is not there.
        hits, misses: cache look-ups of this call; one per distinct prompt with the same adapters.
        owners: of the jobs of the images, one for each image.
    """

    pipeline: Any
    family: DiffusersFamily
    device: torch.device
    dtype: torch.dtype
    cache: EmbeddingCache
    state: tuple[object, ...]
    adapter_sets: Sequence[AdapterSet]
    activate: Callable[[AdapterSet], AbstractContextManager[None]]
    t5: JobT5Proxy | None = None
    hits: int = 0
    misses: int = 0
    owners: Sequence[str] = ()
    _by_owner: dict[str, CacheUse] = field(default_factory=dict)

    def encode(self, inputs: GenerationInputs) -> dict[str, torch.Tensor]:
        """Return the embedding arguments of the pipeline call, one row per image."""
        encoding = self.family.encoding
        sequence, pooled = self._encode_all(encoding.prompt_arguments(inputs))
        embeddings = {"prompt_embeds": sequence, "pooled_prompt_embeds": pooled}
        negatives = encoding.negative_prompt_arguments(inputs, self.pipeline.config)
        if negatives is not None:
            sequence, pooled = self._encode_all(negatives)
            embeddings |= {"negative_prompt_embeds": sequence, "negative_pooled_prompt_embeds": pooled}
        return embeddings

    def is_cached(self, prompt: PromptArguments) -> bool:
        """Whether the prompt's embedding without adapters is cached; counts nothing."""
        return self.cache.peek(self._key(AdapterSet(), prompt)) is not None

    @property
    def cache_use(self) -> CacheUse:
        """The look-ups of this call."""
        return CacheUse(hits=self.hits, misses=self.misses, ahead=0 if self.t5 is None else self.t5.count)

    def cache_use_of(self, owner: str) -> CacheUse:
        """The look-ups of one owner's jobs in this call, as if nobody else had ever used the cache."""
        return self._by_owner.get(owner, CacheUse())

    def _encode_all(self, prompts: Sequence[PromptArguments]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the stacked sequences and pooled embeddings; each distinct prompt is encoded once."""
        pairs = [
            (adapters.for_text_encoders, prompt)
            for adapters, prompt in zip(self.adapter_sets, prompts, strict=True)
        ]
        keys = [self._key(*pair) for pair in pairs]
        uses = dict.fromkeys(zip(self.owners or [""] * len(keys), keys, strict=True))
        known = {use for use in uses if self.cache.is_known_to(*use)}
        embeddings = {
            key: self._embedding(key, *pair) for key, pair in dict(zip(keys, pairs, strict=True)).items()
        }
        for owner, key in uses:
            before, is_hit = self.cache_use_of(owner), (owner, key) in known
            self._by_owner[owner] = CacheUse(hits=before.hits + is_hit, misses=before.misses + (not is_hit))
            self.cache.note_use(owner, key)
        return (
            torch.cat([embeddings[key].sequence for key in keys]).to(self.device),
            torch.cat([embeddings[key].pooled for key in keys]).to(self.device),
        )

    def _key(self, adapters: AdapterSet, prompt: PromptArguments) -> tuple[object, ...]:
        return (self.state, adapters.key, tuple(sorted(prompt.items())))

    def _embedding(self, key: object, adapters: AdapterSet, prompt: PromptArguments) -> Embedding:
        cached = self.cache.get(key)
        if cached is not None:
            self.hits += 1
            return cached
        self.misses += 1
        with self.activate(adapters):
            embedding = self._compute(prompt)
        self.cache.put(key, embedding)
        return embedding

    def _compute(self, prompt: PromptArguments) -> Embedding:
        encoding = self.family.encoding
        with torch.no_grad():
            results = self.pipeline.encode_prompt(**_in_lists(prompt), **encoding.constants, device=self.device)
        sequence, pooled = (results[index].to("cpu", self.dtype) for index in encoding.result_indexes)
        return Embedding(sequence, pooled)


def _in_lists(prompt: PromptArguments) -> PromptArguments:
    """Wrap each text in a list: diffusers takes an empty text for a missing one, but not a list of one."""
    return {name: [value] if isinstance(value, str) else value for name, value in prompt.items()}
