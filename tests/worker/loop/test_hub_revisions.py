"""Workers of one service and what is on a hub: one commit for all, few requests, and none once files are here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec
from contracts.catalogue.families import Mode
from contracts.hub_revisions import Revisions
from contracts.jobs.receipt import Weights
from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.hub import Hub, serving, use_hub
from tests.support.hub_repositories import checkpoint, controlnet, loras, with_clutter, with_other_weights
from tests.support.jobs import make_job
from tests.support.workers import make_consumer, work_until_ended
from worker.adapters.files import LoraFiles
from worker.checkpoints.places import Places
from worker.pool.pool import Pool

RunWorker = Callable[..., list[JobRecord]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with an SDXL checkpoint, much that no worker needs, LoRAs and a ControlNet, and an empty cache."""
    with serving() as hub:
        hub.commit("org/sdxl", with_clutter(checkpoint()))
        hub.commit("org/loras", loras("tint", "stripes"))
        hub.commit("org/lines", controlnet())
        use_hub(monkeypatch, hub, tmp_path / "hub")
        yield hub


@pytest.fixture
def on_hub(catalogue: Catalogue) -> Catalogue:
    """A catalogue whose rows for SDXL are on the hub."""
    sdxl, *others = catalogue.models
    lora = LoraSpec(id="tint", family="sdxl", source="org/loras", file="shapes-sdxl-tint.safetensors")
    return catalogue.model_copy(
        update={
            "models": (sdxl.model_copy(update={"source": "org/sdxl"}), *others),
            "loras": (lora,),
            "controlnets": (ControlNetSpec(id="sdxl-hint", family="sdxl", source="org/lines"),),
        }
    )


@pytest.fixture
def run_worker(settings: SharedSettings, storage: Storage, queue: JobQueue, on_hub: Catalogue) -> RunWorker:
    """Runs a new worker of the service until jobs have ended."""

    def run(*ids: str) -> list[JobRecord]:
        places = Places(on_hub, Revisions(queue.connection))
        pool = Pool(on_hub, device="cpu", lora_files=LoraFiles(on_hub, storage, places=places))
        return work_until_ended(make_consumer(settings, pool, storage), queue, *ids)

    return run


def test_a_first_job_fetches_what_it_needs_once_and_a_second_asks_nothing_also_after_a_restart_offline(
    hub: Hub,
    on_hub: Catalogue,
    queue: JobQueue,
    storage: Storage,
    run_worker: RunWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = make_job(on_hub, "sdxl", Mode.CONTROLNET, loras=[{"name": "tint"}])
    ids = [queue.submit(job).id for _ in range(2)]
    first, second = run_worker(*ids)
    needed = {name: file for name, file in hub.files("org/sdxl").items() if name in _NEEDED}
    assert hub.fetched("org/sdxl") == {name: len(file.content) for name, file in needed.items()}
    assert hub.fetched("org/loras") == {_TINT: len(hub.files("org/loras")[_TINT].content)}
    assert hub.fetched("org/lines").keys() == {"config.json", "diffusion_pytorch_model.safetensors"}
    # Of each repository the commit and the files are asked for, and then each file once.
    assert len(hub.requests) == 3 * 2 + len(_NEEDED) + 1 + 2

    asked = len(hub.requests)
    hub.stop()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (third,) = run_worker(queue.submit(job).id)
    assert len(hub.requests) == asked
    images = [[storage.read(image.key) for image in record.images] for record in (first, second, third)]
    assert images[0] == images[1] == images[2] != []


def test_workers_make_one_image_of_a_seed_while_main_moves_and_receipts_name_its_commit(
    hub: Hub,
    on_hub: Catalogue,
    queue: JobQueue,
    storage: Storage,
    run_worker: RunWorker,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    job = make_job(on_hub, "sdxl", Mode.CONTROLNET, loras=[{"name": "tint"}])
    before = {name: hub.head(f"org/{name}") for name in ("sdxl", "loras", "lines")}
    (first,) = run_worker(queue.submit(job).id)
    hub.commit("org/sdxl", with_other_weights(checkpoint()))
    hub.commit("org/loras", loras("stripes"))
    use_hub(monkeypatch, hub, tmp_path / "of another machine")
    (second,) = run_worker(queue.submit(job).id)

    assert [record.state for record in (first, second)] == [JobState.COMPLETED] * 2
    assert storage.read(first.images[0].key) == storage.read(second.images[0].key)
    for record in (first, second):
        assert record.receipt is not None
        weights = (record.receipt.model, *record.receipt.loras, *record.receipt.controlnets)
        assert [_origin(one) for one in weights] == [(f"org/{name}", commit) for name, commit in before.items()]


_TINT = "shapes-sdxl-tint.safetensors"
_NEEDED = {name for name in checkpoint() if name != "README.md"}


def _origin(weights: Weights) -> tuple[str | None, str | None]:
    return weights.repository, weights.revision
