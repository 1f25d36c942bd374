"""Models are prepared one after another, each once; a failure does not stop the next."""

from __future__ import annotations

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import diffusers
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from worker.checkpoints import sources
from worker.checkpoints.places import PreparationWatch
from worker.loop.prefetch import Prefetcher
from worker.pool.pool import Pool


def test_each_model_is_prepared_once_in_the_order_of_the_requests() -> None:
    gate, over, prepared = threading.Event(), threading.Event(), []

    def prepare(model: str, watch: PreparationWatch) -> None:
        del watch
        assert gate.wait(30)
        prepared.append(model)
        if model == "last":
            over.set()

    prefetcher = Prefetcher(prepare)
    askers = [threading.Thread(target=prefetcher.begin, args=["first"]) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    for model in ("second", "first", "last"):
        prefetcher.begin(model)
    assert (prefetcher.pending, prefetcher.ready) == (["first", "second", "last"], [])
    gate.set()
    assert over.wait(30)
    assert prepared == ["first", "second", "last"]


def test_a_model_that_cannot_be_prepared_counts_as_ready_and_the_next_one_follows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    over = threading.Event()

    def prepare(model: str, watch: PreparationWatch) -> None:
        del watch
        if model == "good":
            over.set()
            return
        raise OSError("/secret/path is away")

    prefetcher = Prefetcher(prepare)
    prefetcher.begin("bad")
    prefetcher.begin("good")
    assert over.wait(30)
    assert "bad" in prefetcher.ready
    assert "bad could not be prepared: OSError" in caplog.text
    prefetcher.begin("bad")
    assert "bad" not in prefetcher.pending


def test_a_model_that_was_loaded_and_dropped_is_prepared_again() -> None:
    prepared: Queue[str] = Queue()
    prefetcher = Prefetcher(lambda name, watch: prepared.put(name))
    for loaded in ((), ["other"], ["model"]):
        prefetcher.forget(loaded)
        prefetcher.begin("model")
        if loaded != ["other"]:
            assert prepared.get(timeout=30) == "model"
        while prefetcher.pending:
            time.sleep(0.001)
    assert prepared.empty()


def test_a_controlnet_is_prepared_by_its_own_name(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, digest, hashed = Pool(catalogue, device="cpu"), hashlib.file_digest, []

    def count(*arguments: Any) -> Any:
        hashed.append(Path(arguments[0].name).name)
        return digest(*arguments)

    monkeypatch.setattr(hashlib, "file_digest", count)
    pool.prepare("controlnet:sdxl-hint")
    assert sorted(hashed) == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_the_hub_is_asked_for_a_model_only_once(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is at least one round trip, during which no other job is generated."""
    locate, asked = sources.fetch_model, []

    def count(*arguments: Any, **options: Any) -> Any:
        asked.append(arguments[1].id)
        return locate(*arguments, **options)

    monkeypatch.setattr(sources, "fetch_model", count)
    pool = Pool(catalogue, device="cpu", max_models=1)
    pool.prepare("shapes-sdxl")
    for id in ("shapes-sdxl", "shapes-flux", "shapes-sdxl"):
        pool.model(id)
    assert asked == ["shapes-sdxl", "shapes-flux"]


def test_a_prepared_model_is_not_hashed_again(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, digest, hashed = Pool(catalogue, device="cpu"), hashlib.file_digest, []

    def count(*arguments: Any) -> Any:
        hashed.append(threading.current_thread().name)
        return digest(*arguments)

    monkeypatch.setattr(hashlib, "file_digest", count)
    thread = threading.Thread(target=pool.prepare, args=["shapes-flux"], name="beside")
    thread.start()
    thread.join()
    assert set(hashed) == {"beside"}
    assert (
        pool.model("shapes-flux").weights.sha256
        == Pool(catalogue, device="cpu").model("shapes-flux").weights.sha256
    )
    assert hashed.count("beside") == len(hashed) // 2


def test_building_a_model_changes_torch_for_all_threads(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So building stays with the jobs' thread. Should diffusers lose this trap one day, this test says so."""
    built, plain, seen = diffusers.FluxTransformer2DModel, torch.nn.Module.register_parameter, []
    from_config = built.from_config

    def look() -> tuple[torch.dtype, bool]:
        return torch.get_default_dtype(), torch.nn.Module.register_parameter is plain

    def look_from_another_thread(*arguments: Any, **options: Any) -> Any:
        with ThreadPoolExecutor(1) as another:
            seen.append(another.submit(look).result())
        return from_config(*arguments, **options)

    monkeypatch.setattr(built, "from_config", look_from_another_thread)
    built.from_pretrained(catalogue.root / "shapes-flux" / "transformer", dtype=torch.bfloat16)
    assert seen == [(torch.bfloat16, False)]
    assert look() == (torch.float32, True)
