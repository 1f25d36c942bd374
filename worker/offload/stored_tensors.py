"""The plain tensors that a module's weights are stored in: the weights themselves, or what is inside of them.

A weight may be a tensor of a class that computes with plain tensors inside it, such as one that torchao quantized:
to assign its `data` moves nothing. Those inside are moved like any other, and then the weight is made again around
them, since it has noted the device that they were on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

#: The usual classes of weights, with nothing inside.
_PLAIN = (torch.nn.Parameter, torch.Tensor)


def stored_tensors(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Return the plain tensors of parameters and buffers, each once."""
    found = (part for tensor in tensors for part in _parts(tensor))
    return list({id(part): part for part in found}.values())


def own_tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    """Return the plain tensors of a module's own weights, without those of the modules inside it."""
    return stored_tensors([*module.parameters(recurse=False), *module.buffers(recurse=False)])


class WrappedWeights:
    """The weights of a module that are made of plain tensors."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._places: dict[int, tuple[torch.nn.Module, str]] = {}
        if all(map(_is_plain, module.parameters())):  # nearly always, and a second walk would take as long
            return
        for part in module.modules():
            for name, tensor in part.named_parameters(recurse=False):
                if not _is_plain(tensor):
                    self._places |= {id(inner): (part, name) for inner in _parts(tensor)}

    def renew(self, moved: Iterable[torch.Tensor]) -> None:
        """Make those weights again of which these plain tensors were moved to another device."""
        if not self._places:
            return
        places = (self._places[id(tensor)] for tensor in moved if id(tensor) in self._places)
        for part, name in dict.fromkeys(places):
            weight = part.get_parameter(name)
            if weight.device != _parts(weight)[0].device:
                _replace(part, name, _made_again(weight))

    def compute_in(self, dtype: torch.dtype) -> None:
        """Have them stand for values of this dtype, not of another."""
        for part, name in dict.fromkeys(self._places.values()):
            weight: Any = part.get_parameter(name)
            if weight.dtype != dtype:
                _replace(part, name, _made_again(weight, dtype=dtype))


def _replace(part: torch.nn.Module, name: str, made: Any) -> None:
    made._is_param = True  # all that `Parameter` would do, but for detaching the tensors inside
    part.register_parameter(name, made)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether no other tensors are inside it. The usual classes are compared first: that is faster."""
    return type(tensor) in _PLAIN or not is_traceable_wrapper_subclass(tensor)


def _parts(tensor: Any) -> list[torch.Tensor]:
    """A plain tensor itself, else those inside it, at any depth."""
    if _is_plain(tensor):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in _parts(getattr(tensor, name))]


def _made_again(tensor: Any, **changes: Any) -> Any:
    """The same weight around the same plain tensors, which says where they are now; a plain tensor itself.

    Args:
        changes: of what the weight knows beside them.
    """
    if _is_plain(tensor):
        return tensor
    names, settings = tensor.__tensor_flatten__()
    inside = {name: _made_again(getattr(tensor, name)) for name in names}
    settings = {**settings, **changes} if changes else settings
    return type(tensor).__tensor_unflatten__(inside, settings, tensor.shape, tensor.stride())
