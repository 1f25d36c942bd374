"""Which tensors of a file end up in a model, whatever a library's converters do to them on the way.

Tensors are marked with their names, and what is computed from marked ones has their marks. So a tensor that no
layer takes is found even where a converter drops it without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from diffusers.loaders import single_file_model, single_file_utils
from torch.utils._pytree import tree_flatten, tree_map

from worker.checkpoints.quantized.gguf_files import is_packed
from worker.checkpoints.sliced import load_in_slices

#: Name -> tensor.
Tensors = dict[str, torch.Tensor]

_LOADER = "load_model_dict_into_meta"
_MAX_LISTED = 3
#: Names of the tensors whose values were read as numbers.
_read: ContextVar[set[str]] = ContextVar("read", default=set())  # noqa: B039  # outside, nobody looks at it


class MarkedTensor(torch.Tensor):
    """A tensor, or a packed parameter, that knows the names of the tensors that it was made from."""

    names: frozenset[str] = frozenset()

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run any function of torch, and mark its results with what its arguments are marked with."""
        parent: Any = super()
        result = parent.__torch_function__(function, types, args, dict(kwargs or {}))
        arguments = tree_flatten((args, kwargs))[0]
        names = frozenset().union(*(one.names for one in arguments if isinstance(one, MarkedTensor)))
        if isinstance(result, int | float) and function in (torch.Tensor.item, torch.Tensor.__float__):
            _read.get().update(names)
        return tree_map(lambda one: _mark(one, names), result)


def _mark(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, MarkedTensor):
        value.names = names
    return value


def mark(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the same tensors, marked with their names; no values are copied."""
    return {name: _mark(_markable(tensor), frozenset({name})) for name, tensor in tensors.items()}


def _markable(tensor: Any) -> Any:
    if not is_packed(tensor):
        return tensor.as_subclass(MarkedTensor)
    packed_class: Any = type(tensor)
    return _marked_class(packed_class)(tensor.as_tensor(), quant_type=tensor.quant_type)


@cache
def _marked_class(packed_class: Any) -> Any:
    """A class of packed parameters that are marked: loaders look for the class of packed ones."""
    return type(f"Marked{packed_class.__name__}", (MarkedTensor, packed_class), {})


def names_of(value: Any) -> frozenset[str]:
    """Return the names that a tensor is marked with."""
    return value.names if isinstance(value, MarkedTensor) else frozenset()


def some_of(names: Sequence[str]) -> str:
    """Return names of tensors for an error: the first few, shortened, and how many more there are."""
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(name[:120] for name in names[:_MAX_LISTED]) + more


def unmarked(value: Any) -> Any:
    """Return the same tensor, packed parameter or number, without marks."""
    if is_packed(value):
        (packed_class,) = (base for base in type(value).__bases__ if base is not MarkedTensor)
        return packed_class(value.as_tensor(), quant_type=value.quant_type)
    return value.as_subclass(torch.Tensor) if isinstance(value, MarkedTensor) else value


@contextmanager
def numbers_read() -> Iterator[set[str]]:
    """Inside, collect the names of the marked tensors whose values are read as numbers."""
    names: set[str] = set()
    token = _read.set(names)
    try:
        yield names
    finally:
        _read.reset(token)


@contextmanager
def used_names() -> Iterator[set[str]]:
    """Inside, collect the names of the marked tensors that diffusers' single-file loaders put into models.

    Replaces the function by which both modules of these loaders (0.42) give a model its weights;
    `test_a_tensor_that_no_layer_takes_is_named` fails when they use another.
    """
    used: set[str] = set()
    modules = (single_file_model, single_file_utils)
    originals = [getattr(module, _LOADER) for module in modules]
    try:
        for module, original in zip(modules, originals, strict=True):
            setattr(module, _LOADER, _recording(load_in_slices(original), used))
        yield used
    finally:
        for module, original in zip(modules, originals, strict=True):
            setattr(module, _LOADER, original)


def _recording(load: Callable[..., Any], used: set[str]) -> Callable[..., Any]:
    def record(model: torch.nn.Module, state_dict: Tensors, *more: Any, **named: Any) -> Any:
        known = model.state_dict().keys()
        for key, tensor in state_dict.items():
            if key in known:
                used.update(names_of(tensor))
        plain = {key: unmarked(tensor) for key, tensor in state_dict.items()}
        return load(model, plain, *more, **named)

    return record
