"""Whose rows are whose: in one call each adapter changes the rows of the images that asked for it, and no other's.

A layer is given one row for each image, or several where guidance runs its passes together: diffusers' pipelines
then put all images of one pass before all of the next. Knows neither files nor models.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from worker.low_rank import Added


class Rows:
    """Some images of a call, found again in whatever a layer is given."""

    def __init__(self, images: Sequence[int], of: int) -> None:
        """`images` are numbers of some of the `of` images of the call."""
        self._images = images
        self._of = of
        self._found: dict[tuple[int, torch.device], torch.Tensor] = {}

    def change(self, add: Added, inputs: torch.Tensor, result: torch.Tensor) -> None:
        """Have `add` change these images' rows of a layer's result, in place.

        Raises:
            RuntimeError: the rows are no whole number of passes over the images.
        """
        rows = self._rows(result.shape[0], result.device)
        changed = add(inputs.index_select(0, rows), result.index_select(0, rows))
        result.index_copy_(0, rows, changed.to(result.dtype))

    def _rows(self, count: int, device: torch.device) -> torch.Tensor:
        key = (count, device)
        if key not in self._found:
            passes, rest = divmod(count, self._of)
            if rest:
                raise RuntimeError(f"a layer was given {count} rows for {self._of} images")
            rows = [turn * self._of + image for turn in range(passes) for image in self._images]
            self._found[key] = torch.tensor(rows, device=device)
        return self._found[key]


#: What to add, and to which images; None: to all of the call.
Share = tuple[Added, Rows | None]


class Adding:
    """The hook on one layer."""

    def __init__(self, shares: Sequence[Share]) -> None:
        """`shares` act one after the other."""
        self._shares = shares

    def __call__(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor], result: torch.Tensor) -> torch.Tensor:
        """The layer's result, with everybody's share."""
        del layer
        dtype = result.dtype
        for add, rows in self._shares:
            if rows is None:
                result = add(inputs[0], result)
            else:
                rows.change(add, inputs[0], result)
        return result.to(dtype)
