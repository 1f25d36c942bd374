"""Encodes prompts into embeddings before the pipeline call, and caches them.

Each prompt is encoded alone, whatever images share its call, so an embedding has the same bytes computed or
cached, alone or with others. Knows nothing of where the encoders are placed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from contracts.catalogue.families import FAMILIES, Family
from contracts.jobs.receipt import CacheUse
from contracts.requests.prompt_tokens import Tokenize
from worker.adapters.cache import AdapterSet
from worker.encoding.cache import Embedding, EmbeddingCache
from worker.encoding.cpu_t5 import JobT5Proxy
from worker.encoding.windows import PromptWindows, encode_windows, padded, read_windows, tokenizers_of
from worker.families import DiffusersFamily, GenerationInputs, Prompt, PromptArguments


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

    @property
    def _spec(self) -> Family:
        return FAMILIES[self.family.id]

    @cached_property
    def _tokenizers(self) -> dict[str, Tokenize]:
        return tokenizers_of(self.pipeline, self._spec)

    def encode(self, inputs: GenerationInputs) -> dict[str, torch.Tensor]:
        """Return the embedding arguments of the pipeline call, one row per image.

        All images must have as many windows: see `windows`.
        """
        prompts, negatives = self._prompts(inputs)
        embeddings = {"": self._encode_all(prompts)}
        if negatives is not None:
            embeddings["negative_"] = self._encode_all(negatives)
        windows = max(embedding.windows for rows in embeddings.values() for embedding in rows)
        arguments = {}
        for prefix, rows in embeddings.items():
            pairs = zip(rows, self.adapter_sets, negatives if prefix and negatives else prompts, strict=True)
            rows = [self._padded(*pair, windows) for pair in pairs]
            arguments[f"{prefix}prompt_embeds"] = torch.cat([row.sequence for row in rows]).to(self.device)
            arguments[f"{prefix}pooled_prompt_embeds"] = torch.cat([row.pooled for row in rows]).to(self.device)
        return arguments

    def is_cached(self, prompt: PromptArguments) -> bool:
        """Whether the plain prompt's embedding without adapters is cached; counts nothing."""
        return self.cache.peek(self._key(AdapterSet(), Prompt(prompt))) is not None

    @property
    def cache_use(self) -> CacheUse:
        """The look-ups of this call."""
        return CacheUse(hits=self.hits, misses=self.misses, ahead=0 if self.t5 is None else self.t5.count)

    def cache_use_of(self, owner: str) -> CacheUse:
        """The look-ups of one owner's jobs in this call, as if nobody else had ever used the cache."""
        return self._by_owner.get(owner, CacheUse())

    def _prompts(self, inputs: GenerationInputs) -> tuple[list[Prompt], list[Prompt] | None]:
        encoding = self.family.encoding
        return encoding.prompts(inputs), encoding.negative_prompts_of(inputs, self.pipeline.config)

    def _encode_all(self, prompts: Sequence[Prompt]) -> list[Embedding]:
        """Return the embedding of each image; each distinct prompt is encoded once."""
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
        return [embeddings[key] for key in keys]

    def _key(self, adapters: AdapterSet, prompt: Prompt) -> tuple[object, ...]:
        more = tuple(sorted(prompt.chunks.items()))
        long_prompt = prompt.long_prompt if self._is_long(prompt) else ""
        return (self.state, adapters.key, tuple(sorted(prompt.arguments.items())), more, long_prompt)

    def _is_long(self, prompt: Prompt) -> bool:
        """Whether it matters what is to happen to a long prompt."""
        return prompt.long_prompt == "chunk" and self._windows(prompt).count > 1

    def _windows(self, prompt: Prompt) -> PromptWindows:
        return read_windows(prompt, self._spec, self._tokenizers)

    def _embedding(self, key: object, adapters: AdapterSet, prompt: Prompt) -> Embedding:
        cached = self.cache.get(key)
        if cached is not None:
            self.hits += 1
            return cached
        self.misses += 1
        with self.activate(adapters):
            embedding = self._compute(adapters, prompt)
        self.cache.put(key, embedding)
        return embedding

    def _padded(self, embedding: Embedding, adapters: AdapterSet, prompt: Prompt, windows: int) -> Embedding:
        if embedding.windows in (0, windows):
            return embedding
        adapters = adapters.for_text_encoders
        with self.activate(adapters):
            return padded(embedding, self._empty(adapters, prompt), windows)

    def _empty(self, adapters: AdapterSet, prompt: Prompt) -> Embedding:
        """Return the embedding of the empty prompt; no look-up of the job's own."""
        key = self._key(adapters, prompt.without_text)
        embedding = self.cache.peek(key)
        if embedding is None:
            embedding = self._encode_plain(prompt.without_text)
            self.cache.put(key, embedding)
        return embedding

    def _compute(self, adapters: AdapterSet, prompt: Prompt) -> Embedding:
        windows = self._windows(prompt)
        beginning = self._encode_plain(prompt)
        if windows.is_plain:
            return beginning
        with torch.no_grad():
            return encode_windows(
                self.pipeline,
                self._spec,
                windows,
                beginning=beginning,
                empty=self._empty(adapters, prompt),
                clip_skip=prompt.arguments.get("clip_skip"),
                device=self.device,
            )

    def _encode_plain(self, prompt: Prompt) -> Embedding:
        """Have diffusers encode the text; of a long one, its beginning."""
        encoding = self.family.encoding
        arguments = {**_in_lists(prompt.arguments), **encoding.constants}
        with torch.no_grad():
            results = self.pipeline.encode_prompt(**arguments, device=self.device)
        sequence, pooled = (results[index].to("cpu", self.dtype) for index in encoding.result_indexes)
        return Embedding(sequence, pooled, int(self._spec.chunks_prompts))


def _in_lists(prompt: PromptArguments) -> PromptArguments:
    """Wrap each text in a list: diffusers takes an empty text for a missing one, but not a list of one."""
    return {name: [value] if isinstance(value, str) else value for name, value in prompt.items()}
