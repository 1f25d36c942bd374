"""Makes a model of a file alone, whose configuration is known from elsewhere: each tensor is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from contracts.errors import CatalogueError
from worker.checkpoints.components import check_layers
from worker.checkpoints.sliced import converted
from worker.checkpoints.tracking import Tensors, mark, names_of, some_of, unmarked


def renamed(stored: Tensors, convert: Callable[[Tensors], Mapping[str, Any]], kind: str) -> Tensors:
    """The tensors under diffusers' names.

    Args:
        convert: one of diffusers' converters.
        kind: what errors call the model, such as `ControlNet`.

    Raises:
        CatalogueError: the converter drops a tensor, or cannot read the file.
    """
    try:
        found = convert(mark(stored))
    except (KeyError, IndexError, ValueError) as error:
        raise CatalogueError(f"its file is not in the layout of an original {kind}: {error}") from error
    tensors = {name: tensor for name, tensor in found.items() if tensor is not None}
    used = frozenset().union(*map(names_of, tensors.values()))
    left = sorted(stored.keys() - used)
    if left:
        raise CatalogueError(f"no layer of a {kind} takes {some_of(left)} of its file")
    return {name: unmarked(tensor) for name, tensor in tensors.items()}


def assemble(
    module_class: Any, config: Mapping[str, Any], tensors: Tensors, dtype: torch.dtype, kind: str, remedy: str
) -> Any:
    """A model with this configuration and these weights, in host memory.

    Args:
        kind: what errors call it.
        remedy: the end of an error.

    Raises:
        CatalogueError: the file lacks weights, holds others, or some of another shape.
    """
    with torch.device("meta"):
        module = module_class.from_config(config)
    own, stored = ({key: tensor.shape for key, tensor in each.items()} for each in (module.state_dict(), tensors))
    try:
        check_layers(f"the {kind}", own, stored)
    except CatalogueError as error:
        raise CatalogueError(f"{error}: {remedy}") from None
    module.load_state_dict(converted(tensors, dtype), assign=True)
    return _with_tables(module, module_class, config).eval()


def _with_tables(module: Any, module_class: Any, config: Mapping[str, Any]) -> Any:
    """Give the tables that no file holds, such as those of positions, their computed values.

    They are buffers, or plain attributes of layers: Qwen-Image's are complex, and no buffers.
    """
    buffers = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    attributes = [
        (layer, name) for layer, part in module.named_modules() for name, value in vars(part).items()
        if isinstance(value, torch.Tensor) and value.is_meta
    ]  # fmt: skip
    if not buffers and not attributes:
        return module
    whole = module_class.from_config(config)
    found = dict(whole.named_buffers())
    for name in buffers:
        parent, _, buffer = name.rpartition(".")
        module.get_submodule(parent).register_buffer(buffer, found[name], persistent=False)
    for layer, name in attributes:
        setattr(module.get_submodule(layer), name, getattr(whole.get_submodule(layer), name))
    return module
