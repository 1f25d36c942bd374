"""Listens to one job's pipeline through its scheduler: counts steps, starts previews, finds non-finite latents.

Every pipeline calls `scheduler.step` once a step, those without a callback too. Also times the job's stages.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from contracts.jobs.events import Preview
from worker.engine.job import JobInFlight
from worker.generation.steps.checked import CheckedStep
from worker.generation.steps.hashes import StepHashes
from worker.sampling.previews import PreviewEmitter
from worker.sampling.step_cache import StepCache


class Watch(Protocol):
    """Observer of a running job."""

    def step(self, step: int, steps: int) -> None:
        """Called after each denoising step, counted from 1."""

    def preview(self, preview: Preview) -> None:
        """Called for each preview, in another thread, before the job ends."""


class StageTimer:
    """Wall-clock seconds of each stage of a job; other jobs may have been served meanwhile.

    Attributes:
        seconds: stage -> seconds, rounded to 0.1 ms.
    """

    def __init__(self, device: torch.device, on_end: Callable[[str, float], object] | None = None) -> None:
        """`on_end`: told each stage and its seconds at its end; a stage may have several parts."""
        self.seconds: dict[str, float] = {}
        self._on_end = on_end
        self._device = device
        self._started = time.perf_counter()

    def end_stage(self, stage: str) -> None:
        """Add the time since the last stage ended to this stage; waits for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 4)
        if self._on_end is not None:
            self._on_end(stage, seconds)


class StepListener:
    """Replacement of the `step` method of a job's own scheduler, which reports each step.

    The replacement keeps the signature, because pipelines pass `eta` and `generator` only to schedulers whose
    `step` takes them (`test_the_pipeline_passes_a_scheduler_the_same_arguments_with_previews`).
    """

    def __init__(
        self,
        pipeline: Any,
        job: JobInFlight,
        watch: Watch,
        timer: StageTimer,
        emitter: PreviewEmitter | None,
        step_cache: StepCache | None,
        hashes: StepHashes | None = None,
        checked: CheckedStep | None = None,
        later_steps: int = 0,
    ) -> None:
        """Listen from now on; the scheduler is the job's own.

        Args:
            later_steps: of the job's further stages, as far as they are known yet.
        """
        self._steps_before, self._later_steps = job.steps_done, later_steps
        self._pipeline, self._job, self._watch, self._timer = pipeline, job, watch, timer
        self._emitter, self._step_cache, self._hashes, self._checked = emitter, step_cache, hashes, checked
        self._finite: torch.Tensor | None = None
        inner = pipeline.scheduler.step

        @functools.wraps(inner)
        def step(*args: Any, **kwargs: Any) -> Any:
            return self._end_step(inner(*args, **kwargs))

        pipeline.scheduler.step = step

    def close(self) -> None:
        """Let go of the scheduler: it and this would keep each other, and their latents, alive."""
        vars(self._pipeline.scheduler).pop("step", None)

    @property
    def non_finite_images(self) -> frozenset[int]:
        """Indexes of images whose final latents contain NaN or infinite values; waits for the device."""
        finite = [] if self._finite is None else self._finite.tolist()
        return frozenset(index for index, is_finite in enumerate(finite) if not is_finite)

    def _end_step(self, result: Any) -> Any:
        job = self._job
        job.steps_done += 1
        last = self._steps_before + self.steps
        job.steps = last + self._later_steps
        if self._step_cache is not None:
            self._step_cache.end_step()
        latents = result[0]
        if self._hashes is not None:
            self._hashes.end_step(latents)
        if self._checked is not None:
            result = _with_latents(result, self._checked.end_step(latents))
        if job.steps_done == last:
            self._timer.end_stage("denoise")
            result = self._finite_result(result)
        if self._emitter is not None:
            self._emitter.end_step(job.steps_done, job.steps, latents)
        self._watch.step(job.steps_done, job.steps)
        return result

    @property
    def steps(self) -> int:
        """Steps of the pipeline call: those of its schedule that its strength leaves."""
        known = getattr(self._pipeline, "_num_timesteps", None)
        if known is not None:
            return int(known)
        scheduler = self._pipeline.scheduler
        return len(scheduler.timesteps) - (getattr(scheduler, "begin_index", None) or 0)

    def _finite_result(self, result: Any) -> Any:
        """Note which images are finite; NaN and infinite values of the last step become 0.

        Both happen on the device, and the host reads them with the images: finite latents stay as they are.
        """
        latents = result[0]
        self._finite = torch.isfinite(latents).flatten(1).all(1)
        return _with_latents(result, torch.nan_to_num(latents, 0.0, 0.0, 0.0))


def _with_latents(result: Any, latents: torch.Tensor) -> Any:
    """What a scheduler's step has returned, with other latents."""
    if isinstance(result, tuple):
        return (latents, *result[1:])
    result.prev_sample = latents
    return result
