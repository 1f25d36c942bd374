"""Loading weights in slices, in our own code and in the libraries' loaders. Knows no files.

diffusers (0.42) and transformers (5.23) change torch's defaults while they construct a model, and no longer when
they give it its weights, tensor by tensor: there a slice may end
(`test_what_the_libraries_change_is_not_in_force_in_a_pause` fails when that changes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import transformers.core_model_loading
from diffusers.hooks import layerwise_casting
from diffusers.models import model_loading_utils

from worker.runtime import slices


def converted(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The same tensors in this dtype; slices end between them."""
    return {name: tensor.to(dtype) for name, tensor in zip(tensors, slices.each(tensors.values()), strict=True)}


@contextmanager
def loaders_sliced() -> Iterator[None]:
    """Inside, slices end while diffusers and transformers give a model its weights, or store them in 8 bits."""
    with ExitStack() as undo:
        for module, name, sliced in (
            (model_loading_utils, "load_model_dict_into_meta", load_in_slices),
            (transformers.core_model_loading, "set_param_for_module", _noting_parameter),
            (layerwise_casting, "apply_layerwise_casting_hook", _noting_layer),
        ):
            original = getattr(module, name)
            undo.callback(setattr, module, name, original)
            setattr(module, name, sliced(original))
        yield


def load_in_slices(load: Callable[..., Any]) -> Callable[..., Any]:
    """diffusers' function that gives a model a state dict, called with one slice of it after another."""

    def load_slices(model: torch.nn.Module, tensors: Mapping[str, Any], *more: Any, **named: Any) -> Any:
        part = {}
        for name, tensor in tensors.items():
            part[name] = tensor
            if slices.is_full(tensor.nbytes):
                load(model, part, *more, **named)
                part = {}
                slices.end()
        return load(model, part, *more, **named)

    return load_slices


def _noting_parameter(put: Callable[..., Any]) -> Callable[..., Any]:
    def put_and_note(model: torch.nn.Module, name: str, value: Any, *more: Any, **named: Any) -> Any:
        result = put(model, name, value, *more, **named)
        slices.note(value.nbytes)
        return result

    return put_and_note


def _noting_layer(cast: Callable[..., Any]) -> Callable[..., Any]:
    def cast_and_note(layer: torch.nn.Module, *more: Any, **named: Any) -> Any:
        result = cast(layer, *more, **named)
        slices.note(sum(weight.nbytes for weight in layer.parameters()))
        return result

    return cast_and_note
