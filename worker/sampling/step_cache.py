"""`speed: fast`: predicts the denoiser's result at some steps instead of computing it.

The prediction is TaylorSeer's (https://arxiv.org/abs/2503.06923), as in diffusers 0.42. `apply_taylorseer_cache`
hooks it into single layers, of models whose pipelines name their passes. Here diffusers' hook is put around the
whole denoiser, and passes are told apart by their order in the step. So it works for every family and pipeline,
and what is inside the denoiser (adapters, ControlNet residuals, compiled blocks) runs as a whole or not at all.
The hooks are on two modules for the length of one pipeline call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import CacheContext, StateManager
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheHook, TaylorSeerState

from contracts.catalogue.families import StepCacheSchedule

_HOOK_NAME = "darkroom_step_cache"
#: Attributes that diffusers leaves in a module's `vars` after its last hook was removed.
_LEFTOVERS: tuple[str, ...] = ("forward", "_diffusers_hook")


class StepCache:
    """State of one pipeline call of which some steps are predicted.

    Attributes:
        predicted_calls: denoiser calls that were predicted so far.
    """

    def __init__(self, schedule: StepCacheSchedule) -> None:
        self.predicted_calls = 0
        self._schedule = schedule
        self._step = 0
        self._passes = 0
        # What is kept is as small as the latents, so float32 costs nothing.
        options = {"taylor_factors_dtype": torch.float32, "max_order": schedule.order}
        self._states = StateManager(TaylorSeerState, init_kwargs=options)

    def end_step(self) -> None:
        """Count a step. It has one pass through the denoiser, or two with true classifier-free guidance."""
        self._step, self._passes = self._step + 1, 0

    @property
    def computes(self) -> bool:
        """Whether the denoiser runs at the current step."""
        return self._schedule.computes(self._step)

    def make_hook(self) -> ModelHook:
        """Return the hook that computes or predicts the denoiser's result."""
        return TaylorSeerCacheHook(
            self._schedule.interval, self._schedule.first_steps, torch.float32, self._states
        )

    def begin_pass(self, *_: Any) -> None:
        """Forward pre-hook: each pass of a step is predicted from the same pass of earlier steps."""
        self._states.set_context(CacheContext(str(self._passes)))
        self._passes += 1

    def end_pass(self, module: torch.nn.Module, args: Any, result: Any) -> Any:
        """Forward hook: diffusers' hook returns a predicted tensor bare, the denoiser a tuple of one."""
        del module, args
        if isinstance(result, torch.Tensor):
            self.predicted_calls += 1
            return (result,)
        return result


class CachedControlNet(ModelHook):  # type: ignore[misc]
    """Hook that skips a ControlNet at steps whose denoiser result is predicted, where nothing reads its result."""

    def __init__(self, cache: StepCache) -> None:
        super().__init__()
        self._cache = cache
        self._last_result: Any = None

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the ControlNet's result, or its last one at a step that is predicted."""
        del module
        if self._cache.computes:
            self._last_result = None
            self._last_result = self.fn_ref.original_forward(*args, **kwargs)
        return self._last_result


@contextmanager
def step_cache(
    schedule: StepCacheSchedule, denoiser: torch.nn.Module, controlnet: torch.nn.Module | None
) -> Iterator[StepCache]:
    """Predict steps of the one pipeline call inside; afterwards both modules are as they were before."""
    cache = StepCache(schedule)
    with ExitStack() as cleanup:
        cleanup.enter_context(_hooked(denoiser, cache.make_hook()))
        cleanup.callback(denoiser.register_forward_pre_hook(cache.begin_pass).remove)
        cleanup.callback(denoiser.register_forward_hook(cache.end_pass).remove)
        if controlnet is not None:
            cleanup.enter_context(_hooked(controlnet, CachedControlNet(cache)))
        yield cache


@contextmanager
def _hooked(module: torch.nn.Module, hook: ModelHook) -> Iterator[None]:
    """Put a diffusers hook on a module while inside, and leave no trace of it.

    `HookRegistry` of diffusers 0.42 leaves a bound `forward` and an empty registry in the module's `vars` when its
    last hook is removed; they are deleted here (`test_diffusers_leaves_a_forward_and_a_registry_in_a_module`).
    """
    attributes = vars(module)
    before = {name: attributes[name] for name in _LEFTOVERS if name in attributes}
    registry = HookRegistry.check_if_exists_or_initialize(module)
    try:
        registry.register_hook(hook, _HOOK_NAME)
        yield
    finally:
        registry.remove_hook(_HOOK_NAME, recurse=False)
        for name in _LEFTOVERS:
            attributes.pop(name, None)
        attributes.update(before)
