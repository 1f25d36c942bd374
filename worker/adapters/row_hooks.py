"""Makes LoRAs act on their own jobs' rows of each layer's output or input, with hooks that are always removed.

A joined call computes the rows of several jobs one after the other; whose they are, the caller says. Knows neither
files nor which LoRAs stay loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import torch

from worker.adapters.layer_weight import Layer
from worker.adapters.low_rank import Change, InputChange

_Key = TypeVar("_Key")
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Rows:
    """The rows of a joined call that are one adapter's: `start` to `stop` (exclusive) of `total`."""

    start: int
    stop: int
    total: int

    def apply(self, change: Change, inputs: torch.Tensor, output: torch.Tensor) -> None:
        """Apply a change to these rows of a layer's output, in place.

        Raises:
            RuntimeError: the layer was given another number of rows than the call has, such as all tokens of all
                images in one axis: which of them are whose is not known here.
        """
        self._require_all(output)
        own = output[self.start : self.stop]
        own.copy_(change(inputs[self.start : self.stop], own))

    def replace(self, change: InputChange, inputs: torch.Tensor) -> torch.Tensor:
        """Return a layer's inputs with a change of these rows; raises as `apply`."""
        self._require_all(inputs)
        own = change.change(inputs[self.start : self.stop])
        return torch.cat([inputs[: self.start], own, inputs[self.stop :]])

    def _require_all(self, values: torch.Tensor) -> None:
        if len(values) != self.total:
            raise RuntimeError(f"a layer was given {len(values)} rows in a call of {self.total}")


#: A change and the rows that it is for; None: all rows of the call, whatever their number.
RowChange = tuple[Change | InputChange, Rows | None]


class LoraHook:
    """Forward hook that applies each LoRA's change to its own rows of a layer's output."""

    def __init__(self, changes: Sequence[tuple[Change, Rows | None]]) -> None:
        """`changes` are applied in this order."""
        self._changes = changes

    def __call__(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        """Return the layer's output with all changes, in its own dtype."""
        del layer
        dtype = output.dtype
        for change, rows in self._changes:
            if rows is None:
                output = change(inputs[0], output)
            else:
                rows.apply(change, inputs[0], output)
        return output.to(dtype)


class InputHook:
    """Forward pre-hook that applies changes of a layer's input, each to its own rows."""

    def __init__(self, changes: Sequence[tuple[InputChange, Rows | None]]) -> None:
        """`changes` are applied in this order."""
        self._changes = changes

    def __call__(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return the layer's inputs with all changes, which LoRAs of the layer are given too."""
        del layer
        changed = inputs[0]
        for change, rows in self._changes:
            changed = change.change(changed) if rows is None else rows.replace(change, changed)
        return (changed.to(inputs[0].dtype), *inputs[1:])


def joined_rows(
    parts: Sequence[tuple[Sequence[tuple[_Key, _Item]], int]],
) -> Iterator[tuple[_Key, _Item, Rows | None]]:
    """Yield each item that acts, with its key and its rows, in each part's order.

    Neighbours with one key share one item. Rows are None where it acts on all.

    Args:
        parts: the items of each range of rows, and how many rows it has, in order.
    """
    total = sum(rows for _, rows in parts)
    for position in range(max(len(items) for items, _ in parts)):
        start = 0
        at_position = [(items[position] if position < len(items) else None, rows) for items, rows in parts]
        for _, group in groupby(at_position, lambda part: part[0] and part[0][0]):
            ranges = list(group)
            stop = start + sum(rows for _, rows in ranges)
            found = ranges[0][0]
            if found is not None:
                yield *found, None if stop - start == total else Rows(start, stop, total)
            start = stop


class LayerHooks:
    """The LoRA hooks that are registered on one model's layers.

    Attributes:
        count: hooks registered now; 0 means that the model computes as without LoRAs.
    """

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def registered(self, changes: Mapping[Layer, Sequence[RowChange]]) -> Iterator[None]:
        """Register hooks for the time inside; an error inside, or half-way into it, removes them too."""
        with ExitStack() as hooks:
            for layer, own in changes.items():
                of_inputs = [(change, rows) for change, rows in own if isinstance(change, InputChange)]
                of_outputs = [(change, rows) for change, rows in own if not isinstance(change, InputChange)]
                if of_inputs:
                    self._add(hooks, layer.register_forward_pre_hook(InputHook(of_inputs)))
                if of_outputs:
                    # Before all other hooks: an offloading hook takes the layer's weights away.
                    self._add(hooks, layer.register_forward_hook(LoraHook(of_outputs), prepend=True))
            yield

    def _add(self, hooks: ExitStack, handle: torch.utils.hooks.RemovableHandle) -> None:
        self.count += 1
        hooks.callback(self._remove, handle)

    def _remove(self, handle: torch.utils.hooks.RemovableHandle) -> None:
        handle.remove()
        self.count -= 1
