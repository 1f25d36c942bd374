"""Listens to one pipeline call: times its stages, reports its steps, starts previews, finds non-finite latents."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch

from contracts.queue.events import Preview
from worker.sampling.previews import PreviewEmitter
from worker.sampling.step_cache import StepCache


class Watch(Protocol):
    """Observer of running jobs."""

    def step(self, step: int, steps: int) -> None:
        """Called after each denoising step, counted from 1; raises to stop the call."""

    def check(self) -> None:
        """Called between stages that have no steps; raises to stop the call."""

    def preview(self, job_id: str, preview: Preview) -> None:
        """Called for each preview, in another thread, before the call ends."""


class StageTimer:
    """Wall-clock seconds of each stage.

    Attributes:
        seconds: stage -> seconds, rounded to 0.1 ms.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._started = time.perf_counter()

    def end_stage(self, stage: str) -> None:
        """Add the time since the last stage ended to this stage; waits for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._started, 4)
        self._started = now


class StepCallback:
    """A pipeline's `callback_on_step_end`, with a hook on its denoiser.

    Attributes:
        watch: is told of each step.
        timer: of the stages.
        raised: what the watch raised; it is not a failure of the worker.
    """

    def __init__(self, watch: Watch, timer: StageTimer) -> None:
        self.watch = watch
        self.timer = timer
        self.raised: BaseException | None = None
        self._finite: torch.Tensor | None = None
        self._emitter: PreviewEmitter | None = None
        self._step_cache: StepCache | None = None
        self._denoising = False

    @property
    def predicted_calls(self) -> int:
        """Denoiser calls that the step cache predicted."""
        return 0 if self._step_cache is None else self._step_cache.predicted_calls

    @property
    def non_finite_images(self) -> frozenset[int]:
        """Indexes of images whose final latents contain NaN or infinite values; waits for the device."""
        finite = [] if self._finite is None else self._finite.tolist()
        return frozenset(index for index, is_finite in enumerate(finite) if not is_finite)

    @contextmanager
    def listening(
        self,
        denoiser: torch.nn.Module,
        controlnet: torch.nn.Module | None,
        emitter: PreviewEmitter | None,
        step_cache: StepCache | None,
    ) -> Iterator[None]:
        """Listen to one pipeline call; afterwards no hook is left, and no preview comes."""
        self._emitter, self._step_cache = emitter, step_cache
        with ExitStack() as cleanup:
            for module in (denoiser, controlnet):
                if module is not None:
                    cleanup.callback(module.register_forward_pre_hook(self._before_denoiser).remove)
            if emitter is not None:
                cleanup.callback(emitter.close)
            yield

    def end_stage(self, stage: str) -> None:
        """Time a stage before the first step, and let the watch stop the call there."""
        self.timer.end_stage(stage)
        self._tell(self.watch.check)

    def _tell(self, report: Callable[[], None]) -> None:
        try:
            report()
        except BaseException as error:
            self.raised = error
            raise

    def _before_denoiser(self, *_: Any) -> None:
        """Before the first call of the denoiser or its ControlNet, the stage that encodes the inputs ends."""
        if not self._denoising:
            self.timer.end_stage("encode_inputs")
        self._denoising = True

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Handle the end of a step, counted from 0; returns replaced tensors, as diffusers expects."""
        del timestep
        if self._step_cache is not None:
            self._step_cache.end_step()
        replaced: dict[str, Any] = {}
        if step + 1 == pipeline.num_timesteps:
            self.timer.end_stage("denoise")
            replaced = self._replace_non_finite(tensors["latents"])
        if self._emitter is not None:
            self._emitter.end_step(step + 1, pipeline.num_timesteps, tensors["latents"])
        self._tell(lambda: self.watch.step(step + 1, pipeline.num_timesteps))
        return replaced

    def _replace_non_finite(self, latents: torch.Tensor) -> dict[str, Any]:
        """Note which images are finite, and set NaN and infinite values to 0 so that they cannot spread to others.

        Both happen on the device, and the host reads them with the images: finite latents stay as they are.
        """
        self._finite = torch.isfinite(latents).flatten(1).all(1)
        return {"latents": torch.nan_to_num(latents, 0.0, 0.0, 0.0)}
