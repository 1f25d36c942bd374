"""The text encoders of one loaded model: for its jobs, and for the thread that encodes waiting jobs' prompts.

Knows no other component of the model, and neither the queue nor which prompts come next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from contracts.memory.plan import Placement
from contracts.requests.parameters import JobParameters
from worker.adapters import reader
from worker.adapters.cache import AdapterSet
from worker.encoding.cache import EmbeddingCache
from worker.encoding.cpu_t5 import CpuT5, JobT5Proxy
from worker.encoding.encoder import PromptEncoder
from worker.encoding.placed_words import PlacedWords
from worker.families import DiffusersFamily
from worker.families.inputs import GenerationInputs
from worker.offload.placement import ComponentPlacement
from worker.pool.pipelines import derive

#: Makes adapters act on the text encoders while inside.
Activation = Callable[[AdapterSet], AbstractContextManager[None]]

_NO_ADAPTERS = AdapterSet()


@dataclass
class PromptEncoders:
    """The text encoders that a model's calls share, wherever the plan has placed them.

    Attributes:
        base: the pipeline that holds them.
        weights: content hash of the model, and how its text encoders are quantized.
        weights_lock: held while T5 runs in the lookahead thread, and while weights are loaded or moved.
        encodes_ahead: whether a lookahead thread has T5 read the prompts of waiting jobs.
    """

    family: DiffusersFamily
    base: Any
    placement: ComponentPlacement
    device: torch.device
    dtype: torch.dtype
    cache: EmbeddingCache
    weights: str
    weights_lock: threading.RLock
    encodes_ahead: bool
    _cpu_t5: CpuT5 | None = field(default=None, init=False, repr=False)

    @property
    def t5_on_cpu(self) -> bool:
        """Whether T5 is on the CPU, where it can encode prompts of waiting jobs."""
        return self._cpu_t5 is not None and self._t5_placement is Placement.CPU

    @property
    def _t5_placement(self) -> Placement | None:
        return self.placement.placement_of(self.family.t5 or "")

    def for_job(self, adapters: AdapterSet, activate: Activation, owner: str) -> PromptEncoder:
        """The text encoders for a job with these adapters, of this owner.

        Args:
            activate: makes adapters act on the text encoders while inside.
        """
        return self._encoder(adapters, activate, owner, self._job_t5())

    def encode_ahead(self, job: JobParameters, may_continue: Callable[[], bool]) -> int:
        """Have T5 read the prompts of a job that waits, where it is on the CPU; for the lookahead thread.

        Args:
            may_continue: asked before each text.

        Returns:
            How many texts were encoded that were not known.
        """
        cpu_t5 = self._cpu_t5
        if cpu_t5 is None:
            return 0
        inputs, encoding = GenerationInputs(job), self.family.prompt_encoding
        is_cached = self._encoder(_NO_ADAPTERS, lambda _: nullcontext(), "", None).is_cached
        prompts = [encoding.prompt_of(inputs), encoding.negative_prompt_of(inputs, self.base.config)]
        given = [prompt.arguments for prompt in prompts if prompt is not None]
        new = [arguments for arguments in given if not is_cached(arguments)]
        return cpu_t5.encode_ahead(new, lambda: may_continue() and self._t5_placement is Placement.CPU)

    def _job_t5(self) -> JobT5Proxy | None:
        """What runs T5 in its turn with the lookahead thread; None where it is not on the CPU.

        Nor where adapters can change it: those of the call that runs would act on what is encoded ahead.
        """
        t5 = self.family.t5
        if t5 is None or not self.encodes_ahead or self._t5_placement is not Placement.CPU:
            return None
        if t5 in reader.adaptable_components(self.base):
            return None
        if self._cpu_t5 is None:
            pipeline_with = partial(derive, type(self.base), self.base)
            self._cpu_t5 = CpuT5(
                t5, self.family, self.base, pipeline_with, self.cache, self.weights, self.weights_lock
            )
        return self._cpu_t5.job_proxy()

    def _encoder(
        self, adapters: AdapterSet, activate: Activation, owner: str, job_proxy: JobT5Proxy | None
    ) -> PromptEncoder:
        """The text encoders as they are now; `job_proxy` takes the place of T5."""
        pipeline, t5 = self.base, self.family.t5
        stand_ins: dict[str, Any] = {}
        t5_state = None
        if t5 is not None:
            skipped = self._t5_placement is Placement.SKIPPED
            t5_state = "skipped" if skipped else str(next(getattr(self.base, t5).parameters()).dtype)
            if skipped or job_proxy:
                stand_ins = {t5: job_proxy}
        words = PlacedWords(adapters.inversions)
        stand_ins |= words.tokenizers(self.base)
        if stand_ins:
            pipeline = derive(type(self.base), self.base, **stand_ins)
        state = (self.weights, str(self.dtype), t5_state)
        return PromptEncoder(
            pipeline,
            self.family,
            self.device,
            self.dtype,
            self.cache,
            state,
            adapters,
            activate,
            job_proxy,
            owner,
            words,
        )
