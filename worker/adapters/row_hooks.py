"""Makes LoRAs act on their own images' rows of each layer's output, with forward hooks that are always removed.

A pipeline call computes several images together; in every layer, dimension 0 has one row per image, repeated for
each pass of classifier-free guidance. Knows neither files nor which LoRAs stay loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch

from worker.adapters.low_rank import Change, Layer


class ImageRows:
    """The rows that some of a call's images have in a layer's input and output."""

    def __init__(self, images: Sequence[int], of: int) -> None:
        """`images` are indexes into the `of` images of the call."""
        self._images = images
        self._of = of
        self._indexes: dict[tuple[int, torch.device], torch.Tensor] = {}

    def apply(self, change: Change, inputs: torch.Tensor, output: torch.Tensor) -> None:
        """Apply a change to these images' rows of a layer's output, in place.

        Raises:
            RuntimeError: the number of rows is not a multiple of the number of images.
        """
        rows = self._row_indexes(output.shape[0], output.device)
        changed = change(inputs.index_select(0, rows), output.index_select(0, rows))
        output.index_copy_(0, rows, changed.to(output.dtype))

    def _row_indexes(self, count: int, device: torch.device) -> torch.Tensor:
        key = (count, device)
        if key not in self._indexes:
            passes, remainder = divmod(count, self._of)
            if remainder:
                raise RuntimeError(f"a layer was given {count} rows for {self._of} images")
            rows = [number * self._of + image for number in range(passes) for image in self._images]
            self._indexes[key] = torch.tensor(rows, device=device)
        return self._indexes[key]


#: A change and the images that it is for; None: all images of the call.
RowChange = tuple[Change, ImageRows | None]


class LoraHook:
    """Forward hook that applies each LoRA's change to its own images' rows of a layer's output."""

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
