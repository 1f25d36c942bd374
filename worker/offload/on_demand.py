"""Components that are on the device only while their own stage runs: T5 and other text encoders, denoiser, VAE.

Hooks on their forward passes fetch them, and move the inputs to where they compute. Knows neither plans nor
models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from contracts.memory.plan import Placement
from worker.offload.offloaded_module import OffloadedModule


class OnDemandSlot:
    """The place on the device for the components of one stage after another."""

    def __init__(self) -> None:
        self._present: Sequence[OffloadedModule] = ()

    def take(self, group: Sequence[OffloadedModule]) -> None:
        """Fetch a group's weights and discard those of the group before; nothing where it is present already."""
        if group is not self._present:
            self.clear()
            self._present = group
            for module in group:
                module.fetch()

    def clear(self) -> None:
        """Discard what is there."""
        present, self._present = self._present, ()
        for module in present:
            module.discard()


def hook_stage(
    group: Sequence[OffloadedModule],
    slot: OnDemandSlot,
    undo: ExitStack,
    leave: Sequence[Callable[[], None]] = (),
) -> None:
    """Let whichever component of a stage runs first fetch those that are on demand.

    Args:
        group: all components that compute in the stage.
        undo: removes the hooks.
        leave: called before each run, to discard what other stages have left.
    """
    on_demand = [module for module in group if module.placement is Placement.ON_DEMAND]
    for offloaded in group:
        if offloaded.placement not in (None, Placement.SKIPPED):
            for module, dtype in _entry_points(offloaded.module):
                enter = partial(_enter, slot, on_demand, leave, offloaded.computes_on, dtype)
                remove_later(module.register_forward_pre_hook(enter, with_kwargs=True), undo)


def remove_later(hook: RemovableHandle, undo: ExitStack) -> None:
    """Remove the hook with the others."""
    undo.callback(hook.remove)


def _enter(
    slot: OnDemandSlot,
    on_demand: Sequence[OffloadedModule],
    leave: Sequence[Callable[[], None]],
    device: torch.device,
    dtype: torch.dtype | None,
    module: Any,
    args: Any,
    kwargs: Any,
) -> tuple[Any, Any]:
    del module
    for discard in leave:
        discard()
    slot.take(on_demand)
    return _moved(args, device, dtype), _moved(kwargs, device, dtype)


def _moved(given: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """Arguments with their tensors on a device; torch's own walk through a tree is slow for every step."""
    if isinstance(given, torch.Tensor):
        return given.to(device, dtype)
    if type(given) is dict:
        return {name: _moved(value, device, dtype) for name, value in given.items()}
    if type(given) in (list, tuple):
        return type(given)(_moved(value, device, dtype) for value in given)
    return given


def _entry_points(module: Any) -> list[tuple[torch.nn.Module, torch.dtype | None]]:
    """The modules whose call means that this one runs, with the dtype they need, where that is their own.

    `encode` and `decode` of a VAE do not call its forward, and its dtype may differ from the pipeline's.
    """
    if hasattr(module, "decode"):
        dtype = module.dtype  # found by a walk through all layers
        return [(child, dtype) for child in module.children()]
    return [(module, None)]
