"""What the tests of adapters share: a job with one of them, sets that must load, where their checkpoints are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contracts.catalogue.catalogue import Catalogue
from contracts.requests.parameters import LoraParameters
from contracts.storage import Storage
from tests.support.jobs import Pixels, generate_pixels, make_job
from worker.adapters.active import ActiveLoras, AdapterSet
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


def choose_sets(adapters: ActiveLoras, *wanted: Sequence[LoraParameters]) -> list[AdapterSet]:
    """Sets that must load; what is wrong with one is raised."""
    sets = []
    for one in adapters.choose(wanted):
        if isinstance(one, Exception):
            raise one
        sets.append(one)
    return sets


@contextmanager
def active_loras(adapters: ActiveLoras, *loras: LoraParameters) -> Iterator[None]:
    """Inside, these act for the one image of a call, and for its prompt."""
    sets = choose_sets(adapters, loras)
    with adapters.active(sets), adapters.active_in_texts(*sets):
        yield
