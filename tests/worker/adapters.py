"""What the tests of adapters share: a job with one of them, and where their checkpoints are."""

from __future__ import annotations

from pathlib import Path

from contracts.catalogue import Catalogue
from contracts.storage import Storage
from tests.worker.orders import Pixels, order, pixels
from worker.pipelines import Pool


def paint_with(pool: Pool, storage: Storage, family: str, name: str = "extra", scale: float = 1.0) -> Pixels:
    """The image of a job with one adapter."""
    loras = [{"name": name, "scale": scale}]
    return pixels(order(pool.catalogue, family, loras=loras), pool, storage)


def checkpoint_of(catalogue: Catalogue, family: str) -> Path:
    """The folder of a family's small checkpoint."""
    return catalogue.root / f"shapes-{family}"
