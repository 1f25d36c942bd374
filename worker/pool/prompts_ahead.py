"""Encodes prompts of waiting jobs ahead of time, where a model's T5 is on the CPU, and remembers whose it was.

Used by the thread beside the jobs'. Does not know which jobs come next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from contracts.metrics import Counters
from contracts.requests.parameters import JobParameters
from worker.pool.eviction import ModelCache

#: Jobs that are remembered.
_JOBS = 256


class PromptsAhead:
    """The prompts that were encoded ahead last: owner, model and texts."""

    def __init__(self, cache: ModelCache, counters: Counters) -> None:
        self._cache = cache
        self._counters = counters
        self._jobs: deque[tuple[str | None, ...]] = deque(maxlen=_JOBS)

    @property
    def is_possible(self) -> bool:
        """Whether a model's T5 is on the CPU, so that `encode` has work."""
        return any(model.encoders.t5_on_cpu for model in self._cache.models.values())

    def encode(self, job: JobParameters, goes_on: Callable[[], bool], owner: str = "") -> int:
        """Have T5 read the prompts of a job that waits.

        Args:
            goes_on: asked before each text.
            owner: of the job, who may read on its receipt that this was done.

        Returns:
            How many texts were encoded that were not known.
        """
        model = self._cache.find(job.model)
        encoded = 0 if model is None else model.encoders.encode_ahead(job, goes_on)
        self._jobs.append(_texts_of(job, owner))
        self._counters.count("prompts_encoded_ahead", encoded, model=job.model)
        return encoded

    def was_encoded(self, job: JobParameters, owner: str) -> bool:
        """Whether the prompts of a job with these texts were encoded ahead lately for this owner."""
        return _texts_of(job, owner) in self._jobs


def _texts_of(job: JobParameters, owner: str) -> tuple[str | None, ...]:
    return owner, job.model, job.prompt, job.prompt_2, job.prompt_3, job.negative_prompt
