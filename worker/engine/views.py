"""Views of a model's modules, for pipelines: a call made from a job's coroutine is handed to the engine.

A view is an object of a subclass made on the fly that shares the module's own `__dict__`: it passes every
`isinstance` check and shows every attribute of the module, but differs in its entries. The engine calls the module
itself, so module hooks (offload, adapters) run once for a joined call and never inside a job. Diffusers' pipelines
(0.42) read configurations and dtypes from their modules, and check ControlNets by `isinstance`
(`test_a_view_passes_for_its_module` fails when that is no longer enough).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch

from worker.engine.coroutine import current_coroutine

#: Mixins of diffusers 0.42 whose pipelines edit the modules that all jobs share in their call.
_EDITING_MIXINS = frozenset({"PAGMixin"})


class _View:
    """Mixin of the subclass of a module's class."""

    __slots__ = ()
    _viewed: Any

    def cache_context(self, name: str, **where: Any) -> AbstractContextManager[Any]:
        """diffusers writes this into the module's hooks at once, for all jobs: only its own caches read it."""
        if current_coroutine() is not None:
            return nullcontext()
        context: AbstractContextManager[Any] = self._viewed.cache_context(name, **where)
        return context

    def _reset_stateful_cache(self, *_: Any, **__: Any) -> None:
        """Do nothing: diffusers tells every hook of the end of a job, but other jobs go on."""


def view(module: torch.nn.Module, entries: tuple[str, ...] = ("__call__",)) -> Any:
    """What takes the place of a module in a job's pipeline.

    Args:
        entries: methods that are handed to the engine.

    Raises:
        ValueError: the module has one of diffusers' caches, which hold the past of one pipeline call.
    """
    if getattr(module, "is_cache_enabled", False):
        raise ValueError(f"{type(module).__name__} has a cache of diffusers enabled, so jobs cannot share it")
    module_class: Any = type(module)
    view_class = _view_class(module_class, entries)
    made = view_class.__new__(view_class)
    object.__setattr__(made, "__dict__", module.__dict__)
    object.__setattr__(made, "_viewed", module)
    return made


def refuse_editing(pipeline_class: type) -> None:
    """Refuse pipelines that edit shared modules while they run.

    Raises:
        ValueError: this is one; it is named.
    """
    editing = _EDITING_MIXINS.intersection(base.__name__ for base in pipeline_class.__mro__)
    if editing:
        message = f"{pipeline_class.__name__} ({', '.join(sorted(editing))}) edits modules that all jobs share"
        raise ValueError(f"{message}, so it cannot run beside other jobs")


@cache
def _view_class(module_class: Any, entries: tuple[str, ...]) -> Any:
    """The class of views; its name and module stay, since pipelines write them into their configuration."""
    methods: dict[str, Any] = {entry: _handed_over(entry) for entry in entries}
    attributes = {**methods, "__slots__": ("_viewed",), "__module__": module_class.__module__}
    return type(module_class.__name__, (_View, module_class), attributes)


def _handed_over(entry: str) -> Callable[..., Any]:
    def enter(self: _View, *args: Any, **kwargs: Any) -> Any:
        coroutine = current_coroutine()
        if coroutine is None:
            module = self._viewed
            return module(*args, **kwargs) if entry == "__call__" else getattr(module, entry)(*args, **kwargs)
        return coroutine.call(self._viewed, entry, args, kwargs)

    return enter
