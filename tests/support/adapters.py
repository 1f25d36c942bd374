"""What the tests of adapters share: jobs with them, sets that must load, where their checkpoints are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.requests.entry_parameters import LoraParameters
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.jobs import Pixels, generate_pixels, make_job
from worker.adapters.cache import AdapterSet, LoraCache
from worker.adapters.files import LoraFiles
from worker.pool.pool import Pool


def make_short_job(catalogue: Catalogue, family: str, mode: Mode = Mode.TXT2IMG, **fields: Any) -> JobParameters:
    """A job of two steps: an adapter that acts, or does not, shows as well as in many."""
    return make_job(catalogue, family, mode, num_inference_steps=2, **fields)


def generate_with_lora(
    pool: Pool, storage: Storage, family: str, name: str = "extra", scale: float = 1.0
) -> Pixels:
    """The image of a short job with one adapter."""
    loras = [{"name": name, "scale": scale}]
    return generate_pixels(make_short_job(pool.catalogue, family, loras=loras), pool, storage)


@contextmanager
def own_adapters(pool: Pool, family: str, files: LoraFiles) -> Iterator[LoraCache]:
    """Inside, the family's model of a pool that tests share has these adapters, and none is loaded yet."""
    model = pool.model(f"shapes-{family}")
    before, model.adapters = model.adapters, LoraCache(model.base, model.family, files, model.spec.id)
    try:
        yield model.adapters
    finally:
        model.adapters = before


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
