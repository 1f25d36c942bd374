"""Hashes a job's latents after each step, so that each can be checked later; keeps them where the job asks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from contracts.provenance.receipts.merkle import hash_leaf


class StepHashes:
    """Hashes of one job's latents, and the latents themselves if they are kept."""

    def __init__(self, *, keeps: bool = False) -> None:
        self._images: list[list[str]] = []
        self._keeps, self._latents = keeps, []  # type: bool, list[torch.Tensor]

    @property
    def of_images(self) -> Sequence[Sequence[str]]:
        """Of each image, the hashes of its latents after each step, in hexadecimal."""
        return self._images

    @property
    def latents(self) -> Sequence[torch.Tensor]:
        """The latents after each step, (images, …), on the host; empty unless they are kept."""
        return self._latents

    def begin(self) -> None:
        """Forget the steps of an earlier attempt."""
        self._images, self._latents = [], []

    def end_step(self, latents: torch.Tensor) -> None:
        """Hash what a step has made: (images, …), as stored, little-endian; waits for the device."""
        on_host = latents.detach().cpu().contiguous()
        rows = on_host.view(torch.uint8)
        self._images = self._images or [[] for _ in rows]
        for hashes, row in zip(self._images, rows, strict=True):
            hashes.append(hash_leaf(row.numpy().tobytes()))
        if self._keeps:
            self._latents.append(on_host.clone())  # on a CPU the next step may change them in place
