"""Runs T5 on the CPU: for the current job, and between its texts ahead of time for jobs that wait.

An embedding that was computed ahead stays in the embedding cache until its job asks for it, once. Its key is
everything that the encoder is given, so a wrong guess costs time and changes no image. Knows neither the queue nor
which texts come next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch

from worker.encoding.cache import Embedding, EmbeddingCache
from worker.families import DiffusersFamily
from worker.families.prompts import PromptArguments


class CpuT5:
    """T5 encoder of one model, shared by the job thread and the lookahead thread."""

    def __init__(
        self,
        name: str,
        family: DiffusersFamily,
        base: Any,
        pipeline_with: Callable[..., Any],
        cache: EmbeddingCache,
        weights: str,
        lock: threading.RLock,
    ) -> None:
        """Make it in the job thread: only that thread may use the tokenizers of `base`.

        Args:
            name: the component's name.
            base: the pipeline that holds it.
            pipeline_with: makes a pipeline like `base` with the named components replaced.
            weights: content hash of the model, and how its text encoders are quantized.
            lock: held while this T5 runs or moves, and while a model is loaded, which changes torch's defaults.
        """
        self.module = getattr(base, name)
        self.cache = cache
        self.lock = lock
        self._weights = weights
        self._read = family.prompt_encoding.read_t5
        self._prompt_field = family.prompt_encoding.prompt_fields[-1]
        self._lookahead = _LookaheadT5Proxy(self)
        tokenizer = name.replace("text_encoder", "tokenizer")
        # A tokenizer stores its last padding settings, so two threads must not share one.
        components = {name: self._lookahead, tokenizer: deepcopy(getattr(base, tokenizer))}
        self._pipeline = pipeline_with(**components)

    def encode_ahead(self, prompts: Iterable[PromptArguments], may_continue: Callable[[], bool]) -> int:
        """Encode T5's texts of these prompts into the cache; `may_continue` is asked before each text.

        Returns:
            How many texts were encoded; those already cached do not count.
        """
        before = self._lookahead.count
        for text, length in dict.fromkeys(self._text_and_length(prompt) for prompt in prompts):
            with self.lock, torch.no_grad():
                if not may_continue():
                    break
                self._read(self._pipeline, text, length, torch.device("cpu"))
        return self._lookahead.count - before

    def job_proxy(self) -> JobT5Proxy:
        """Return what takes T5's place in a job's pipeline."""
        return JobT5Proxy(self)

    def key(self, ids: torch.Tensor, options: dict[str, Any]) -> tuple[object, ...]:
        """Return the cache key: everything that determines the encoder's result."""
        dtype = str(next(self.module.parameters()).dtype)
        given = tuple((name, _content(value)) for name, value in sorted({"ids": ids, **options}.items()))
        return ("t5", self._weights, dtype, *given)

    def _text_and_length(self, prompt: PromptArguments) -> tuple[str, int]:
        """Return T5's text, which is the main prompt unless it has one of its own, and its token limit.

        The limit is 0 where requests have none: the family knows it.
        """
        own = prompt[self._prompt_field]
        return prompt["prompt"] if own is None else own, prompt.get("max_sequence_length", 0)


def _content(value: Any) -> object:
    """A tensor's shape and bytes, such as a mask's; anything else as it is."""
    return (*value.shape, value.cpu().numpy().tobytes()) if isinstance(value, torch.Tensor) else value


class _T5Proxy:
    """Stand-in for T5 in a pipeline; everything but the call is T5's own.

    Attributes:
        count: texts that were encoded ahead, by or for this proxy.
    """

    def __init__(self, t5: CpuT5) -> None:
        self.count = 0
        self._t5 = t5

    def __getattr__(self, name: str) -> Any:
        return getattr(self._t5.module, name)


class JobT5Proxy(_T5Proxy):
    """T5 for the job thread: takes what was encoded ahead, else runs the encoder."""

    def __call__(self, ids: torch.Tensor, **options: Any) -> Any:
        """Encode as T5 does; waits for the lookahead thread's current text."""
        with self._t5.lock:
            embedding = self._t5.cache.pop(self._t5.key(ids, options))
            if embedding is None:
                return self._t5.module(ids, **options)
        self.count += 1
        return (embedding.sequence,)


class _LookaheadT5Proxy(_T5Proxy):
    """T5 for the lookahead thread: runs the encoder into the cache."""

    def __call__(self, ids: torch.Tensor, **options: Any) -> tuple[torch.Tensor]:
        """Encode without T5's hooks, which count the current job's memory and move its components."""
        key = self._t5.key(ids, options)
        embedding = self._t5.cache.peek(key)
        if embedding is None:
            embedding = Embedding({"prompt_embeds": self._t5.module.forward(ids, **options)[0]})
            self._t5.cache.put(key, embedding)
            self.count += 1
        return (embedding.sequence,)
