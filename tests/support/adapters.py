"""What the tests of adapters share: a job with one of them, sets that must load, where their checkpoints are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contracts.catalogue.catalogue import Catalogue
from contracts.requests.entry_parameters import LoraParameters
from contracts.storage import Storage
from tests.support.jobs import Pixels, generate_pixels, make_job
from worker.adapters.cache import AdapterSet, LoraCache
from worker.pool.pool import Pool


def generate_with_lora(
    pool: Pool, storage: Storage, family: str, name: str = "extra", scale: float = 1.0
) -> Pixels:
    """The image of a job with one adapter."""
    loras = [{"name": name, "scale": scale}]
    return generate_pixels(make_job(pool.catalogue, family, loras=loras), pool, storage)


def checkpoint_of(catalogue: Catalogue, family: str) -> Path:
    """The folder of a family's small checkpoint."""
    return catalogue.root / f"shapes-{family}"


def choose_sets(adapters: LoraCache, *wanted: Sequence[LoraParameters]) -> list[AdapterSet]:
    """Load one set per image; all must load."""
    sets: list[AdapterSet] = []
    for loras in wanted:
        sets.append(adapters.load(loras, keep=sets))
    return sets


@contextmanager
def active_loras(adapters: LoraCache, *loras: LoraParameters) -> Iterator[None]:
    """Inside, these act for the one image of a call, and for its prompt; afterwards they may be evicted."""
    (own,) = choose_sets(adapters, loras)
    try:
        adapters.act([(own, 1)])
        with adapters.active_in_text_encoders(own):
            yield
    finally:
        adapters.rest()
        adapters.evict(keep=[])
