"""Hashes a job's latents after each step, so that each step can be checked later. Keeps no latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from contracts.provenance.receipts.merkle import hash_leaf


class StepHashes:
    """Hashes of one job's latents."""

    def __init__(self) -> None:
        self._images: list[list[str]] = []

    @property
    def of_images(self) -> Sequence[Sequence[str]]:
        """Of each image, the hashes of its latents after each step, in hexadecimal."""
        return self._images

    def begin(self) -> None:
        """Forget the steps of an earlier attempt."""
        self._images = []

    def end_step(self, latents: torch.Tensor) -> None:
        """Hash what a step has made: (images, …), as stored, little-endian; waits for the device."""
        rows = latents.detach().cpu().contiguous().view(torch.uint8)
        self._images = self._images or [[] for _ in rows]
        for hashes, row in zip(self._images, rows, strict=True):
            hashes.append(hash_leaf(row.numpy().tobytes()))
