"""Embeddings of prompts, and the bytes-bounded memory of them that all models of a worker share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Embedding:
    """What a family's encoders make of one wording, in host memory.

    Attributes:
        sequence: (1, tokens, channels).
        pooled: (1, channels); empty where it is T5's part alone.
    """

    sequence: torch.Tensor
    pooled: torch.Tensor

    @property
    def bytes(self) -> int:
        """Bytes of both tensors."""
        return self.sequence.nbytes + self.pooled.nbytes


class EmbeddingCache:
    """Embeddings of all models, the least recently used forgotten first. Any thread may use it.

    Attributes:
        hits, misses: look-ups since the start.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.hits = self.misses = 0
        self.bytes = 0
        self._budget_bytes = budget_bytes
        self._kept: OrderedDict[object, Embedding] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: object) -> Embedding | None:
        """The embedding that was kept under this key; counts a hit or a miss."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(key)
            return found

    def take(self, key: object) -> Embedding | None:
        """The embedding that was kept under this key, and is forgotten now; counts nothing."""
        with self._lock:
            found = self._kept.pop(key, None)
            if found is not None:
                self.bytes -= found.bytes
            return found

    def look(self, key: object) -> Embedding | None:
        """What `find` would find; counts nothing, and does not count as a use."""
        with self._lock:
            return self._kept.get(key)

    def report(self) -> dict[str, int]:
        """Its `CacheReport`."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "entries": len(self._kept),
            "bytes": self.bytes,
            "budget_bytes": self._budget_bytes,
        }

    def keep(self, key: object, embedding: Embedding) -> None:
        """Remember an embedding, and forget others for it; one larger than the budget is not kept."""
        with self._lock:
            if embedding.bytes > self._budget_bytes or key in self._kept:
                return
            self._kept[key] = embedding
            self.bytes += embedding.bytes
            while self.bytes > self._budget_bytes:
                _, forgotten = self._kept.popitem(last=False)
                self.bytes -= forgotten.bytes
