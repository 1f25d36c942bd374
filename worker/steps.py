"""The pipeline's callback: counts the stages, shows previews, asks the watch after every step whether to go on.

Knows nothing of who watches.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from contracts.errors import FailureCode, JobFailed
from contracts.events import Preview
from worker import previews
from worker.shortcuts import Shortened
from worker.stopwatch import Stopwatch


class Watch(Protocol):
    """Whoever looks on while a batch runs."""

    def step(self, step: int, steps: int) -> None:
        """Called after each denoising step; raises to abandon the batch."""

    def preview(self, job_id: str, preview: Preview) -> None:
        """Called in another thread, between the first step and the batch's end, where a job wants previews."""


class Steps:
    """Tells the watch of each step, and remembers what the watch raised.

    Attributes:
        watch: who is told.
        raised: the watch's own exception, which is no failure of the worker.
    """

    def __init__(self, watch: Watch) -> None:
        self.raised: BaseException | None = None
        self.watch = watch
        self._painter: previews.Painter | None = None
        self._stopwatch: Stopwatch | None = None
        self._shortened: Shortened | None = None
        self._denoising = False

    @property
    def predicted(self) -> int:
        """Runs of the denoiser that were predicted, not computed."""
        return 0 if self._shortened is None else self._shortened.predicted

    def begin(
        self, stopwatch: Stopwatch, painter: previews.Painter | None, shortened: Shortened | None = None
    ) -> None:
        """Start to count the stages of one pipeline call, and to show how its images come along."""
        self._stopwatch, self._painter, self._denoising = stopwatch, painter, False
        self._shortened = shortened

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
        if step + 1 == pipeline.num_timesteps:
            if self._stopwatch is not None:
                self._stopwatch.lap("denoise")
            if not torch.isfinite(tensors["latents"]).all():
                raise JobFailed(FailureCode.INTERNAL, "the model's result holds values that are no numbers")
        if self._painter is not None:
            self._painter.look(step + 1, pipeline.num_timesteps, tensors["latents"])
        try:
            self.watch.step(step + 1, pipeline.num_timesteps)
        except BaseException as error:
            self.raised = error
            raise
        return {}
