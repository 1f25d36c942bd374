"""Makes one step of a job again from latents that were kept, without computing the steps before it.

The pipeline runs as always, so whatever its scheduler draws or counts is as it was. But its calls of networks are
computed for that step alone, and for those before it whose predictions the scheduler uses; at the others it gets
what the first step's calls gave, and then the latents that were kept in place of what comes of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load

from contracts.catalogue.schedulers import SCHEDULERS
from contracts.errors import NotFound
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.provenance.kept_latents import first_step, step_name
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from worker.engine.coroutine import Compute


class StepMade(Exception):
    """Exception that ends the pipeline call after the step."""


class CheckedStep:
    """The step of one job that is made again.

    Attributes:
        step: its number, counted from 1.
    """

    def __init__(self, step: int, steps_before: int, latents: Mapping[str, torch.Tensor]) -> None:
        """Build it.

        Args:
            step: counted from 1.
            steps_before: steps whose predictions the scheduler uses.
            latents: (images, …) after the steps before, by `step_name`.
        """
        self.step, self._first = step, first_step(step, steps_before)
        self._latents = latents
        self._now = 1
        self._calls: dict[torch.nn.Module, int] = {}
        self._results: dict[tuple[torch.nn.Module, int], Any] = {}

    @classmethod
    def of(cls, parameters: JobParameters, storage: Storage) -> CheckedStep | None:
        """The step that a job makes; None for one that makes images.

        Raises:
            JobFailed: the latents are no longer stored.
            Unavailable: the storage does not answer.
        """
        check = parameters.check_step
        if check is None:
            return None
        try:
            latents = {} if check.latents is None else load(storage.read(check.latents))
        except NotFound as error:
            message = "the latents of check_step are no longer stored; send them again"
            raise JobFailed(FailureCode.INPUT_MISSING, message) from error
        return cls(check.step, SCHEDULERS[parameters.scheduler].steps_before or 0, latents)

    def __call__(self, module: torch.nn.Module, entry: str, compute: Compute) -> Any:
        """Make a call of a view, or give the same call's result of the first step; see `Intercept`."""
        if entry != "__call__":
            return compute()
        place = (module, self._calls.get(module, 0))
        self._calls[module] = place[1] + 1
        if self._now >= self._first or place not in self._results:
            result = compute()
            if self._first > 1 and self._now == 1:
                self._results[place] = result
            return result
        return self._results[place]

    def end_step(self, latents: torch.Tensor) -> torch.Tensor:
        """Count a step; returns what the pipeline goes on with.

        Raises:
            StepMade: it was the one.
            JobFailed: the latents that were kept are not of this job.
        """
        done, self._now = self._now, self._now + 1
        self._calls = {}
        if done == self.step:
            raise StepMade
        kept = self._latents.get(step_name(done))
        if kept is None:
            return latents
        if kept.shape != latents.shape or kept.dtype != latents.dtype:
            message = f"check_step.latents are {_describe(kept)}, and this job's are {_describe(latents)}"
            raise JobFailed(FailureCode.INPUT_INCOMPATIBLE, message)
        # Aligned as the job's own: kernels may round otherwise where memory is not.
        return torch.empty_like(latents).copy_(kept)


def _describe(latents: torch.Tensor) -> str:
    return f"{tuple(latents.shape)} {str(latents.dtype).removeprefix('torch.')}"
