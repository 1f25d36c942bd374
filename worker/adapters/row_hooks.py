"""Makes LoRAs act on their own jobs' rows of each layer's output, with forward hooks that are always removed.

A joined call computes the rows of several jobs one after the other; whose they are, the caller says. Knows neither
files nor which LoRAs stay loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from worker.adapters.low_rank import Change, Layer


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
        if len(output) != self.total:
            raise RuntimeError(f"a layer was given {len(output)} rows in a call of {self.total}")
        own = output[self.start : self.stop]
        own.copy_(change(inputs[self.start : self.stop], own))


#: A change and the rows that it is for; None: all rows of the call, whatever their number.
RowChange = tuple[Change, Rows | None]


class LoraHook:
    """Forward hook that applies each LoRA's change to its own rows of a layer's output."""

    def __init__(self, changes: Sequence[RowChange]) -> None:
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
                # Before all other hooks: an offloading hook takes the layer's weights away.
                handle = layer.register_forward_hook(LoraHook(own), prepend=True)
                self.count += 1
                hooks.callback(self._remove, handle)
            yield

    def _remove(self, handle: torch.utils.hooks.RemovableHandle) -> None:
        handle.remove()
        self.count -= 1
