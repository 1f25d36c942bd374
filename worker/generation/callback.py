"""The pipeline's callback: counts the stages, shows previews, asks the watch after every step whether to go on.

Knows nothing of who watches.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch

from contracts.queue.events import Preview
from worker.sampling import previews
from worker.sampling.step_cache import StepCache


class Watch(Protocol):
    """Whoever looks on while a batch runs."""

    def step(self, step: int, steps: int) -> None:
        """Called after each denoising step; raises to abandon the batch."""

    def preview(self, job_id: str, preview: Preview) -> None:
        """Called in another thread, between the first step and the batch's end, where a job wants previews."""


class StepCallback:
    """Tells the watch of each step, and remembers what the watch raised.

    Attributes:
        watch: who is told.
        raised: the watch's own exception, which is no failure of the worker.
        spoilt: images whose latents held values that are no numbers in the end.
    """

    def __init__(self, watch: Watch) -> None:
        self.raised: BaseException | None = None
        self.watch = watch
        self.spoilt: frozenset[int] = frozenset()
        self._painter: previews.PreviewEmitter | None = None
        self._stopwatch: StageTimer | None = None
        self._shortened: StepCache | None = None
        self._denoising = False

    @property
    def predicted(self) -> int:
        """Runs of the denoiser that were predicted, not computed."""
        return 0 if self._shortened is None else self._shortened.predicted

    def begin(
        self, stopwatch: StageTimer, painter: previews.PreviewEmitter | None, shortened: StepCache | None = None
    ) -> None:
        """Start to count the stages of one pipeline call, and to show how its images come along."""
        self._stopwatch, self._painter, self._denoising = stopwatch, painter, False
        self._shortened = shortened
        self.spoilt = frozenset()

    def end(self) -> None:
        """The pipeline call is over; after this no preview comes."""
        if self._painter is not None:
            self._painter.close()

    def denoising_begins(self, *_: Any) -> None:
        """Hook before each run of the denoiser and its ControlNet; the first ends the encoding of the inputs."""
        if not self._denoising and self._stopwatch is not None:
            self._stopwatch.lap("encode_inputs")
        self._denoising = True

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """One step is done. Diffusers insists on a dict in return."""
        del timestep
        if self._shortened is not None:
            self._shortened.step_ends()
        changes: dict[str, Any] = {}
        if step + 1 == pipeline.num_timesteps:
            if self._stopwatch is not None:
                self._stopwatch.lap("denoise")
            changes = self._look_for_spoilt(tensors["latents"])
        if self._painter is not None:
            self._painter.look(step + 1, pipeline.num_timesteps, tensors["latents"])
        try:
            self.watch.step(step + 1, pipeline.num_timesteps)
        except BaseException as error:
            self.raised = error
            raise
        return changes

    def _look_for_spoilt(self, latents: torch.Tensor) -> dict[str, Any]:
        """Note what is spoilt, and have nothing in its place: one image must not spoil the rest of its batch."""
        whole = torch.isfinite(latents).flatten(1).all(1)
        self.spoilt = frozenset((~whole).nonzero().flatten().tolist())
        return {"latents": torch.nan_to_num(latents, 0.0, 0.0, 0.0)} if self.spoilt else {}


class StageTimer:
    """Laps: each names the stage that has just ended."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._since, 4)
        self._since = now
