"""`speed: fast`: at some steps the denoiser's result is predicted, by diffusers' TaylorSeer cache.

diffusers hooks it into single layers of models whose pipelines name their passes; here it is put around the
denoiser as a whole, and told the pass by its place in the step. So it works for every family and every pipeline,
and what is inside the denoiser (adapters, what ControlNets add, compiled blocks) happens as one or not at all.
All of it is on two modules for the length of one pipeline call.
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

_NAME = "darkroom_shortcut"
#: What diffusers leaves in a module that was hooked: a bound method, and an empty registry.
_LEFT: tuple[str, ...] = ("forward", "_diffusers_hook")


class StepCache:
    """One pipeline call in which some steps are predicted.

    Attributes:
        predicted: runs of the denoiser that were saved so far.
    """

    def __init__(self, shortcut: StepCacheSchedule) -> None:
        self.predicted = 0
        self._shortcut = shortcut
        self._step = 0
        self._passes = 0
        # What is kept is as small as the latents, so it costs nothing to keep it exactly.
        options = {"taylor_factors_dtype": torch.float32, "max_order": shortcut.order}
        self._states = StateManager(TaylorSeerState, init_kwargs=options)

    def step_ends(self) -> None:
        """The next run of the denoiser begins a step. With true guidance a step has two passes, else one."""
        self._step, self._passes = self._step + 1, 0

    @property
    def computes(self) -> bool:
        """Whether the denoiser runs at this step."""
        return self._shortcut.computes(self._step)

    def predictor(self) -> ModelHook:
        """The hook that computes or predicts the denoiser's result."""
        return TaylorSeerCacheHook(
            self._shortcut.interval, self._shortcut.first_steps, torch.float32, self._states
        )

    def enter(self, *_: Any) -> None:
        """A pass begins: each is predicted from its own past."""
        self._states.set_context(CacheContext(str(self._passes)))
        self._passes += 1

    def leave(self, module: torch.nn.Module, args: Any, result: Any) -> Any:
        """A pass ends. The hook gives a prediction bare, where the denoiser gives a tuple of one."""
        del module, args
        if isinstance(result, torch.Tensor):
            self.predicted += 1
            return (result,)
        return result


class CachedControlNet(ModelHook):  # type: ignore[misc]
    """A ControlNet needs not look at its picture when nobody will look at what it says."""

    def __init__(self, call: StepCache) -> None:
        super().__init__()
        self._call = call
        self._said: Any = None

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The ControlNet's forward, or what it said last."""
        del module
        if self._call.computes:
            self._said = None
            self._said = self.fn_ref.original_forward(*args, **kwargs)
        return self._said


@contextmanager
def step_cache(
    shortcut: StepCacheSchedule, denoiser: torch.nn.Module, controlnet: torch.nn.Module | None
) -> Iterator[StepCache]:
    """Inside, one pipeline call runs shortened; afterwards both modules are as they were before."""
    call = StepCache(shortcut)
    with ExitStack() as undo:
        undo.enter_context(_hooked(denoiser, call.predictor()))
        undo.callback(denoiser.register_forward_pre_hook(call.enter).remove)
        undo.callback(denoiser.register_forward_hook(call.leave).remove)
        if controlnet is not None:
            undo.enter_context(_hooked(controlnet, CachedControlNet(call)))
        yield call


@contextmanager
def _hooked(module: torch.nn.Module, hook: ModelHook) -> Iterator[None]:
    """The hook is on the module inside, and no trace of it afterwards."""
    own = vars(module)
    before = {name: own[name] for name in _LEFT if name in own}
    registry = HookRegistry.check_if_exists_or_initialize(module)
    try:
        registry.register_hook(hook, _NAME)
        yield
    finally:
        registry.remove_hook(_NAME, recurse=False)
        for name in _LEFT:
            own.pop(name, None)
        own.update(before)
