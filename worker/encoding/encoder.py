"""Encodes a job's prompts into embeddings before its pipeline call, and caches them.

Each prompt is encoded alone, so an embedding has the same bytes computed or cached. Knows nothing of where the
encoders are placed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from contracts.catalogue.families import ALL_FAMILIES, Family
from contracts.jobs.receipt import CacheUse
from contracts.prompts.tokens import Tokenize
from contracts.requests.fields import PROMPT_FIELDS
from worker.adapters.cache import AdapterSet
from worker.encoding.cache import Embedding, EmbeddingCache
from worker.encoding.cpu_t5 import JobT5Proxy
from worker.encoding.placed_words import PlacedWords
from worker.encoding.windows import PromptWindows, encode_windows, padded, read_windows, tokenizers_of
from worker.families import DiffusersFamily
from worker.families.inputs import GenerationInputs
from worker.families.prompts import Prompt, PromptArguments


@dataclass
class PromptEncoder:
    """The text encoders of one model for one job.

    Attributes:
        pipeline: its `encode_prompt` is called.
        device, dtype: of the embeddings, independent of where and in which dtype an encoder computes.
        state: what else determines an embedding: content hash of the weights, dtypes, which encoders are present.
        adapters: of the job.
        activate: makes adapters act on the text encoders while inside.
        t5: the proxy for a T5 on the CPU; None if it is not there.
        owner: of the job.
        words: that stand for its textual inversions; `pipeline` has their tokenizers.
        hits, misses: look-ups of this job in the cache.
    """

    pipeline: Any
    family: DiffusersFamily
    device: torch.device
    dtype: torch.dtype
    cache: EmbeddingCache
    state: tuple[object, ...]
    adapters: AdapterSet
    activate: Callable[[AdapterSet], AbstractContextManager[None]]
    t5: JobT5Proxy | None = None
    owner: str = ""
    words: PlacedWords = field(default_factory=PlacedWords)
    hits: int = field(default=0, init=False)
    misses: int = field(default=0, init=False)
    _owners_hits: int = field(default=0, init=False)

    @property
    def _spec(self) -> Family:
        return ALL_FAMILIES[self.family.id]

    @cached_property
    def _tokenizers(self) -> dict[str, Tokenize]:
        return tokenizers_of(self.pipeline, self._spec)

    def encode(self, inputs: GenerationInputs) -> dict[str, Any]:
        """Return the embedding arguments of the pipeline call: of one row per image, joined as the family does.

        None for a model that reads no prompts.
        """
        encoding = self.family.encoding
        if encoding is None:
            return {}
        prompts = {"": encoding.prompt_of(inputs)}
        negative = encoding.negative_prompt_of(inputs, self.pipeline.config)
        if negative is not None:
            prompts["negative_"] = negative
        embeddings = {prefix: self._look_up(prompt) for prefix, prompt in prompts.items()}
        windows = max(embedding.windows for embedding in embeddings.values())
        arguments, images = {}, inputs.job.num_images
        for prefix, prompt in prompts.items():
            row = self._padded(embeddings[prefix], prompt, windows)
            for name, tensor in row.tensors.items():
                arguments[f"{prefix}{name}"] = encoding.join([tensor.to(self.device)] * images)
        return arguments

    def encode_uncached(self, inputs: GenerationInputs) -> dict[str, torch.Tensor]:
        """Encode the prompt alone, past the cache, so that gradients reach the vectors of its words.

        Returns:
            As `encode`, one row, in host memory.
        """
        prompt = self.family.prompt_encoding.prompt_of(inputs)
        adapters = self.adapters.for_text_encoders
        with self.activate(adapters), self.words.written_in(self.pipeline):
            return dict(self._compute(adapters, prompt).tensors)

    def is_cached(self, prompt: PromptArguments) -> bool:
        """Whether the plain prompt's embedding without adapters is cached; counts nothing."""
        return self.cache.peek(self._key(AdapterSet(), Prompt(prompt))) is not None

    @property
    def cache_use(self) -> CacheUse:
        """Look-ups of this job in the cache."""
        return CacheUse(hits=self.hits, misses=self.misses, ahead=0 if self.t5 is None else self.t5.count)

    @property
    def owners_cache_use(self) -> CacheUse:
        """The same look-ups as if nobody but the job's owner had ever used the cache."""
        return CacheUse(hits=self._owners_hits, misses=self.hits + self.misses - self._owners_hits)

    def _look_up(self, prompt: Prompt) -> Embedding:
        """Return the prompt's embedding, cached or computed."""
        adapters = self.adapters.for_text_encoders
        key = self._key(adapters, prompt)
        self._owners_hits += self.cache.is_known_to(self.owner, key)
        embedding = self._embedding(key, adapters, prompt)
        self.cache.note_use(self.owner, key)
        return embedding

    def _key(self, adapters: AdapterSet, prompt: Prompt) -> tuple[object, ...]:
        more = tuple(sorted(prompt.chunks.items()))
        long_prompt = prompt.long_prompt if self._is_long(prompt) else ""
        words = self.words.key(prompt.arguments.get(name) for name in PROMPT_FIELDS)
        arguments = tuple(sorted(prompt.arguments.items()))
        seen = (self.family.id, prompt.image_digests) if prompt.images else ()
        return (self.state, adapters.key, arguments, more, long_prompt, words, seen, prompt.read_as_negative)

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
        with self.activate(adapters), self.words.written_in(self.pipeline), torch.no_grad():
            embedding = self._compute(adapters, prompt)
        self.cache.put(key, embedding)
        return embedding

    def _padded(self, embedding: Embedding, prompt: Prompt, windows: int) -> Embedding:
        if embedding.windows in (0, windows):
            return embedding
        adapters = self.adapters.for_text_encoders
        with self.activate(adapters):
            return padded(embedding, self._empty(adapters, prompt), windows)

    def _empty(self, adapters: AdapterSet, prompt: Prompt) -> Embedding:
        """Return the embedding of the empty prompt; no look-up of the job's own."""
        key = self._key(adapters, prompt.without_text)
        embedding = self.cache.peek(key)
        if embedding is None:
            with torch.no_grad():
                embedding = self._encode_plain(prompt.without_text)
            self.cache.put(key, embedding)
        return embedding

    def _compute(self, adapters: AdapterSet, prompt: Prompt) -> Embedding:
        windows = self._windows(prompt)
        beginning = self._encode_plain(prompt)
        if windows.is_plain:
            return beginning
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
        encoding = self.family.prompt_encoding
        arguments = {**_in_lists(prompt.arguments), **encoding.constants}
        arguments |= {"image": list(prompt.images)} if prompt.images else {}
        results = encoding.encode(self.pipeline, prompt, {**arguments, "device": self.device})
        tensors = {name: self._kept(results[index]) for name, index in encoding.results.items()}
        found = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return Embedding(found, int(self._spec.chunks_prompts))

    def _kept(self, result: Any) -> torch.Tensor | None:
        """One prompt's result as it is cached: (1, …), in host memory; None where there is none, such as no mask.

        Some pipelines return a list with one tensor a prompt, which has no axis of prompts then.
        """
        if result is None:
            return None
        tensor: torch.Tensor = result[0][None] if isinstance(result, list) else result
        return tensor.to("cpu", self.dtype) if tensor.is_floating_point() else tensor.cpu()


def _in_lists(prompt: PromptArguments) -> PromptArguments:
    """Wrap each text in a list: diffusers takes an empty text for a missing one, but not a list of one."""
    return {name: [value] if isinstance(value, str) else value for name, value in prompt.items()}
