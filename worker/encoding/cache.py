"""Prompt embeddings, and a cache of them with a byte budget that all models of a worker share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Embedding:
    """The embedding of one prompt, in host memory.

    Attributes:
        tensors: argument of the pipeline call -> (1, …): the sequence `prompt_embeds`, and what the family has
            beside it, such as `pooled_prompt_embeds` or a mask of the sequence.
        windows: windows of CLIP with which the sequence begins; 0 where it has none.
    """

    tensors: Mapping[str, torch.Tensor]
    windows: int = 0

    @property
    def sequence(self) -> torch.Tensor:
        """(1, tokens, channels)."""
        return self.tensors["prompt_embeds"]

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def with_tensors(self, windows: int, **tensors: torch.Tensor) -> Embedding:
        """Return the embedding with these tensors in place of its own, and this many windows."""
        return replace(self, tensors={**self.tensors, **tensors}, windows=windows)


class EmbeddingCache:
    """Embeddings by key; the least recently used are evicted first. Safe to use from any thread.

    Attributes:
        hits, misses: results of `get` since the start.
        size_bytes: bytes of all cached embeddings.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.hits = self.misses = 0
        self.size_bytes = 0
        self._budget_bytes = budget_bytes
        self._embeddings: OrderedDict[object, Embedding] = OrderedDict()
        self._owners: dict[object, set[str]] = {}
        self._lock = threading.Lock()

    def get(self, key: object) -> Embedding | None:
        """Return the embedding, or None; counts a hit or a miss."""
        with self._lock:
            embedding = self._embeddings.get(key)
            if embedding is None:
                self.misses += 1
                return None
            self.hits += 1
            self._embeddings.move_to_end(key)
            return embedding

    def is_known_to(self, owner: str, key: object) -> bool:
        """Whether a job of this owner has used the embedding; others must not learn that somebody else's has."""
        with self._lock:
            return owner in self._owners.get(key, ())

    def note_use(self, owner: str, key: object) -> None:
        """Remember that a job of this owner has used the embedding, for as long as it is cached."""
        with self._lock:
            if key in self._embeddings:
                self._owners.setdefault(key, set()).add(owner)

    def pop(self, key: object) -> Embedding | None:
        """Remove and return the embedding, or None; counts nothing."""
        with self._lock:
            embedding = self._embeddings.pop(key, None)
            self._owners.pop(key, None)
            if embedding is not None:
                self.size_bytes -= embedding.size_bytes
            return embedding

    def peek(self, key: object) -> Embedding | None:
        """Return the embedding, or None; counts nothing, and is not a use."""
        with self._lock:
            return self._embeddings.get(key)

    def put(self, key: object, embedding: Embedding) -> None:
        """Cache an embedding and evict others for it; one larger than the budget is not cached."""
        with self._lock:
            if embedding.size_bytes > self._budget_bytes or key in self._embeddings:
                return
            self._embeddings[key] = embedding
            self.size_bytes += embedding.size_bytes
            while self.size_bytes > self._budget_bytes:
                evicted_key, evicted = self._embeddings.popitem(last=False)
                self._owners.pop(evicted_key, None)
                self.size_bytes -= evicted.size_bytes

    def report(self) -> dict[str, int]:
        """Return the fields of a `CacheReport`."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "entries": len(self._embeddings),
            "bytes": self.size_bytes,
            "budget_bytes": self._budget_bytes,
        }
