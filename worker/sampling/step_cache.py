"""`speed: fast`: predicts the denoiser's result at some steps instead of computing it.

The prediction is TaylorSeer's (https://arxiv.org/abs/2503.06923), as in diffusers 0.42, whose state it uses.
`apply_taylorseer_cache` hooks it into single layers, of models whose pipelines name their passes. Here it stands
around the whole denoiser, and passes are told apart by their order in the step. So it works for every family and
pipeline, and what is inside the denoiser (adapters, ControlNet residuals, compiled blocks) runs as a whole or not
at all. Each job has its own; nothing is hooked into the modules that jobs share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.hooks.taylorseer_cache import TaylorSeerState

from contracts.catalogue.families import StepCacheSchedule


class StepCache:
    """State of one job of which some steps are predicted.

    Attributes:
        predicted_calls: denoiser calls that were predicted so far.
    """

    def __init__(self, schedule: StepCacheSchedule, denoiser: torch.nn.Module) -> None:
        """`denoiser`: its calls are predicted; those of other modules but the VAE are ControlNets'."""
        self.predicted_calls = 0
        self._schedule = schedule
        self._denoiser = denoiser
        self._step = self._passes = self._nets = 0
        self._states: list[TaylorSeerState] = []
        self._net_results: dict[int, Any] = {}
        self._gives_list = False
        self._result_class: type = tuple

    def end_step(self) -> None:
        """Count a step. It has one pass through the denoiser, or two with true classifier-free guidance."""
        self._step, self._passes, self._nets = self._step + 1, 0, 0

    def __call__(self, module: torch.nn.Module, entry: str, compute: Callable[[], Any]) -> Any:
        """Compute or predict a call of a view; see `worker.engine.coroutine.Intercept`."""
        if entry != "__call__":
            return compute()
        return self._pass(compute) if module is self._denoiser else self._net(compute)

    def _pass(self, compute: Callable[[], Any]) -> Any:
        """Each pass of a step is predicted from the same pass of earlier steps."""
        if self._passes == len(self._states):
            # What is kept is as small as the latents, so float32 costs nothing.
            self._states.append(TaylorSeerState(torch.float32, self._schedule.order))
        state = self._states[self._passes]
        self._passes += 1
        state.current_step = self._step
        if self._schedule.computes(self._step) or state.last_update_step is None:
            result = compute()
            self._gives_list = isinstance(result[0], list)  # of images
            self._result_class = type(result)
            state.update(tuple(result[0]) if self._gives_list else (result[0],))
            return result
        self.predicted_calls += 1
        predicted = state.predict()
        if issubclass(self._result_class, dict):
            return self._result_class(*predicted)  # a pipeline that reads `.sample`
        return (list(predicted),) if self._gives_list else tuple(predicted)

    def _net(self, compute: Callable[[], Any]) -> Any:
        """A ControlNet rests at steps whose denoiser result is predicted, where nothing reads its result."""
        place = self._nets
        self._nets += 1
        if self._schedule.computes(self._step) or place not in self._net_results:
            self._net_results[place] = None  # before the next one is computed
            self._net_results[place] = compute()
        return self._net_results[place]
