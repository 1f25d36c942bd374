"""What jobs need is prepared in the background, each once; a failure is told and does not stop the next."""

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
from contracts.hub.errors import Cancelled
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.metrics import Counters
from tests.support.waiting import wait_until
from worker.checkpoints import sources
from worker.checkpoints.places import PreparationWatch
from worker.loop.preparation.prefetch import Prefetcher
from worker.pool.loading.fetcher import PreparationDelayed
from worker.pool.pool import Pool


def test_each_model_is_prepared_once_in_the_order_of_the_requests() -> None:
    gate, over, prepared = threading.Event(), threading.Event(), []

    def prepare(model: str, watch: PreparationWatch) -> None:
        del watch
        assert gate.wait(60)
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
    assert over.wait(60)
    assert prepared == ["first", "second", "last"]


class Preparing:
    """A prefetcher whose preparations end as a test says: with `outcomes`, then well."""

    def __init__(self, *outcomes: Exception, **options: Any) -> None:
        self.prepared: list[str] = []
        self._outcomes = list(outcomes)
        self.prefetcher = Prefetcher(self._prepare, **options)

    def _prepare(self, name: str, watch: PreparationWatch) -> None:
        del watch
        self.prepared.append(name)
        if self._outcomes:
            raise self._outcomes.pop(0)

    def run(self, name: str) -> None:
        """Begin, and wait until it has ended in whatever way."""
        self.prefetcher.begin(name)
        wait_until(lambda: name not in self.prefetcher.pending)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (JobFailed(FailureCode.MODEL_LOAD_FAILED, "org/name is gated"), "org/name is gated"),
        (
            OSError("/secret/path is away"),
            "bad cannot be loaded: its files are unusable (OSError); see the worker's log",
        ),
    ],
)
def test_what_cannot_be_prepared_is_not_ready_and_says_why_without_a_path(error: Exception, message: str) -> None:
    preparing = Preparing(error)
    preparing.run("bad")
    preparing.run("good")
    prefetcher = preparing.prefetcher
    assert (prefetcher.ready, prefetcher.deferred) == (["good"], ["bad"])
    assert prefetcher.failures["bad"].message == message
    assert [(one.name, one.state, one.message) for one in prefetcher.preparations] == [("bad", "failed", message)]
    prefetcher.begin("bad")  # remembered for a while
    assert preparing.prepared == ["bad", "good"]


def test_what_fails_for_now_is_tried_again_after_pauses_that_grow() -> None:
    counters = Counters()
    preparing = Preparing(*[PreparationDelayed("away")] * 3, first_pause_seconds=20, counters=counters)
    prefetcher = preparing.prefetcher
    for attempt in range(3):
        preparing.run("model")
        assert (prefetcher.ready, prefetcher.deferred) == ([], ["model"])
        (told,) = prefetcher.preparations
        assert (told.state, told.message) == ("retrying", "away")
        assert 10 * 2**attempt < (told.retry_seconds or 0) <= 20 * 2**attempt
        prefetcher.begin("model")
        assert len(preparing.prepared) == attempt + 1  # not before its pause is over
        prefetcher._delays["model"].ends_at = 0.0
        assert prefetcher.deferred == []
    preparing.run("model")
    assert (prefetcher.ready, prefetcher.preparations) == (["model"], [])
    assert counters.drain() == {
        '["preparations","","model","delayed"]': 3,
        '["preparations","","model","ready"]': 1,
    }


def test_a_hub_that_says_when_to_come_back_is_left_alone_until_then() -> None:
    preparing = Preparing(PreparationDelayed("busy", retry_seconds=100.0), first_pause_seconds=0.001)
    preparing.run("model")
    (told,) = preparing.prefetcher.preparations
    assert 30 < (told.retry_seconds or 0) <= 100


def test_a_pause_is_bounded_whatever_a_hub_says() -> None:
    preparing = Preparing(PreparationDelayed("busy", retry_seconds=1e9))
    preparing.run("model")
    (told,) = preparing.prefetcher.preparations
    assert (told.retry_seconds or 0) <= 300


def test_a_preparation_that_no_job_needs_ends_and_is_not_ready() -> None:
    begun, wanted = threading.Event(), Queue[bool]()

    def prepare(name: str, watch: PreparationWatch) -> None:
        begun.set()
        wait_until(lambda: not watch.is_wanted())
        wanted.put(watch.is_wanted())
        raise Cancelled(name)

    prefetcher = Prefetcher(prepare, is_here=lambda _: False)
    prefetcher.begin("model")
    prefetcher.begin("behind it")
    assert begun.wait(60)
    prefetcher.set_needed("behind it", False)
    prefetcher.set_needed("model", False)
    wait_until(lambda: not prefetcher.pending)
    assert (prefetcher.ready, prefetcher.deferred, wanted.qsize()) == ([], [], 1)


def test_what_is_always_wanted_goes_on_without_a_job() -> None:
    gate = threading.Event()

    def prepare(name: str, watch: PreparationWatch) -> None:
        assert gate.wait(60)
        assert watch.is_wanted(), name

    prefetcher = Prefetcher(prepare)
    prefetcher.begin("model", always_wanted=True)
    prefetcher.set_needed("model", False)
    gate.set()
    wait_until(lambda: prefetcher.ready == ["model"])


def test_what_is_on_this_machine_does_not_wait_for_a_download() -> None:
    gate = threading.Event()

    def prepare(name: str, watch: PreparationWatch) -> None:
        del watch
        assert name != "hub" or gate.wait(60)

    prefetcher = Prefetcher(prepare, is_here=lambda name: name != "hub")
    for name in ("hub", "local", "lora:local"):
        prefetcher.begin(name)
    wait_until(lambda: set(prefetcher.ready) == {"local", "lora:local"})
    assert prefetcher.pending == ["hub"]
    gate.set()
    wait_until(lambda: not prefetcher.pending)


def test_a_download_tells_its_bytes_its_speed_and_the_time_left() -> None:
    counters, gate, told = Counters(), threading.Event(), threading.Event()

    def prepare(name: str, watch: PreparationWatch) -> None:
        del name
        watch.fetched(1000, 4000)  # left from an earlier attempt
        time.sleep(0.6)
        watch.fetched(2000, 4000)
        told.set()
        assert gate.wait(60)

    prefetcher = Prefetcher(prepare, is_here=lambda _: False, counters=counters)
    prefetcher.begin("model")
    assert told.wait(60)
    (view,) = prefetcher.preparations
    gate.set()
    assert (view.state, view.bytes_done, view.bytes_total) == ("fetching", 2000, 4000)
    assert 0 < (view.bytes_per_second or 0) <= 1000 / 0.6 + 1
    assert view.remaining_seconds == pytest.approx(2000 / (view.bytes_per_second or 1), abs=0.1)
    assert view.describe().startswith("model: 0.0 of 0.0 MB, 0.0 MB/s, ")
    assert counters.drain()['["downloaded_bytes","","model"]'] == 1000


def test_a_model_that_was_loaded_and_dropped_is_prepared_again() -> None:
    prepared: Queue[str] = Queue()
    prefetcher = Prefetcher(lambda name, watch: prepared.put(name))
    for loaded in ((), ["other"], ["model"]):
        prefetcher.forget(loaded)
        prefetcher.begin("model")
        if loaded != ["other"]:
            assert prepared.get(timeout=60) == "model"
        while prefetcher.pending:
            time.sleep(0.001)
    assert prepared.empty()


def test_a_controlnet_is_prepared_by_its_own_name(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, digest, hashed = Pool(catalogue, device="cpu"), hashlib.file_digest, []

    def count(*arguments: Any) -> Any:
        hashed.append(Path(arguments[0].name).name)
        return digest(*arguments)

    monkeypatch.setattr(hashlib, "file_digest", count)
    pool.prepare("controlnet:shapes-sdxl-canny")
    assert sorted(hashed) == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_loading_a_model_fetches_nothing(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request to a hub is at least one round trip, during which no other job is generated."""
    fetch, fetched = sources.fetch_model, []

    def count(*arguments: Any, **options: Any) -> Any:
        fetched.append(arguments[1].id)
        return fetch(*arguments, **options)

    monkeypatch.setattr(sources, "fetch_model", count)
    pool = Pool(catalogue, device="cpu", max_models=1)
    pool.prepare("shapes-sdxl")
    for id in ("shapes-sdxl", "shapes-flux", "shapes-sdxl"):
        pool.model(id)
    assert fetched == ["shapes-sdxl"]


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
