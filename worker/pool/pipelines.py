"""Pipelines of other tasks on the components of a loaded one. Knows no model and no job."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from worker.runtime.async_copies import rebound

#: Function of diffusers (0.42) that says where a module's inputs must be, by where its weights are.
_ASKING = "get_module_execution_device"
#: Returns what takes a module's place in a pipeline: (module, names of the entries that are called).
View = Callable[[Any, tuple[str, ...]], Any]


def as_it_is(module: Any, entries: tuple[str, ...]) -> Any:  # noqa: ARG001
    """The view that changes nothing."""
    return module


def derive(pipeline_class: Any, base: Any, **extra: Any) -> Any:
    """Build another task's pipeline on the same component objects.

    diffusers' `from_pipe` (0.42) upcasts the shared weights in place where it is given no dtype;
    `test_from_pipe_upcasts_the_shared_weights_and_derive_does_not` fails when that changes.
    """
    names = inspect.signature(pipeline_class.__init__).parameters
    components = {name: part for name, part in base.components.items() if name in names}
    settings = {name: base.config[name] for name in names if name in base.config and name not in components}
    return pipeline_class(**{**settings, **components, **extra})


@cache
def computing_on(device: torch.device, pipeline_class: Any) -> Any:
    """The pipeline class with a fixed device.

    diffusers' `DiffusionPipeline._execution_device` (0.42) asks the components, which may all be in host memory at
    that moment. `test_pipelines_compute_where_the_worker_says` fails when that changes.
    """
    members: dict[str, Any] = {"_execution_device": device}
    for name in dir(pipeline_class):
        member = inspect.getattr_static(pipeline_class, name)
        function = inspect.unwrap(member) if callable(member) else member
        if isinstance(function, types.FunctionType) and _ASKING in function.__code__.co_names:
            own = rebound(function, **{_ASKING: lambda _module: device})
            static = isinstance(member, staticmethod)
            members[name] = staticmethod(own) if static else own if member is function else torch.no_grad()(own)
    return type(pipeline_class.__name__, (pipeline_class,), members)
