"""Models that a worker loads at its start."""

from __future__ import annotations

from pathlib import Path

from contracts.catalogue.catalogue import Catalogue
from contracts.processes.preparations import FAILED
from contracts.storage import Storage
from worker.loop.preparation.prefetch import Prefetcher
from worker.loop.preparation.warm_list import WarmList
from worker.pool.pool import Pool


def test_a_model_whose_files_are_here_and_cannot_be_loaded_is_reported(
    catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    first, *others = catalogue.models
    folder = tmp_path / "incomplete"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}', encoding="utf-8")
    broken = first.model_copy(update={"source": str(folder)})
    pool = Pool(catalogue.model_copy(update={"models": (broken, *others)}), device="cpu")
    warm_list = WarmList(pool, Prefetcher(pool.prepare, is_here=pool.fetcher.is_here), storage, is_compiled=False)
    warm_list.start([first.id])
    (failure,) = warm_list.failures
    assert (failure.name, failure.state) == (first.id, FAILED)
    assert failure.message.startswith(f"{first.id} cannot be loaded")
