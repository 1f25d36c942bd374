"""A cold model is loaded between the calls of warm ones: who is served meanwhile, and what an end of it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.jobs.failures import FailureCode
from contracts.memory.plan import Placement
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from tests.support.jobs import JobStopped, RecordingWatch, complete_job, make_job, start_jobs, store_result
from worker.engine.engine import Engine
from worker.engine.job import JobInFlight
from worker.pool.pool import Pool
from worker.runtime import slices

#: More steps than a cold load has slices, each of which is followed by a step.
_STEPS = 24


def _long(catalogue: Catalogue) -> JobParameters:
    return make_job(catalogue, "sdxl", num_inference_steps=_STEPS)


def _cold(catalogue: Catalogue, seed: int = 7) -> JobParameters:
    return make_job(catalogue, "flux", num_inference_steps=2, seed=seed)


@pytest.fixture(scope="module")
def expected(catalogue: Catalogue, pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """The files of the warm model's job and of the cold one's, on models loaded with nothing beside."""
    storage = LocalStorage(tmp_path_factory.mktemp("alone"))
    jobs = {"warm": _long(catalogue), "cold": _cold(catalogue)}
    return {name: complete_job(job, pool, storage)[0] for name, job in jobs.items()}


@pytest.fixture(autouse=True)
def slices_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small FLUX takes a dozen slices of its weights, and one for each component."""
    monkeypatch.setattr(slices, "SLICE_BYTES", 2**20)


class Running:
    """A job of a warm model that has made its first steps, on an engine of its own."""

    def __init__(self, catalogue: Catalogue, storage: Storage, **options: Any) -> None:
        self.pool = Pool(catalogue, device="cpu", **options)
        self.engine, self.storage = Engine(self.pool), storage
        (self.warm,) = start_jobs([_long(catalogue)], self.engine, self.pool, storage, name="warm")
        while self.warm.steps_done < 2:
            self.engine.tick()

    def start(
        self, *jobs: JobParameters, watch: RecordingWatch | None = None, name: str = "cold", tier: int = 1
    ) -> list[JobInFlight]:
        return start_jobs(jobs, self.engine, self.pool, self.storage, watch, name=name, tier=tier)

    def is_loading(self, job: JobInFlight) -> bool:
        return self.engine.residency.is_loading(job)

    def begin_loading(self, job: JobInFlight) -> None:
        """Go on until some slices of the job's model are loaded."""
        while not self.is_loading(job):
            assert not job.coroutine.dead
            self.engine.tick()
        for _ in range(6):
            self.engine.tick()
        assert self.is_loading(job), "too few slices: nothing was tested"

    def end(self) -> None:
        while self.engine.jobs:
            self.engine.tick()

    def files(self, *flights: JobInFlight) -> list[list[bytes]]:
        results = [store_result(flight, self.storage) for flight in flights]
        return [[self.storage.read(image.key) for image in result.stored] for result in results]

    def is_clean(self) -> bool:
        """Whether nothing of a load is left in the pool's accounts."""
        cache = self.pool._cache
        return not cache.loading and not +cache.in_use and not self.pool.memory_tracker._counting


def test_a_warm_models_job_steps_between_the_slices_of_a_cold_load_and_all_bytes_are_those_of_jobs_alone(
    catalogue: Catalogue, storage: Storage, expected: dict[str, list[bytes]]
) -> None:
    run = Running(catalogue, storage, budget_bytes=2**30)  # every tensor is counted
    (cold,) = run.start(_cold(catalogue))
    order: list[str] = []
    while run.engine.jobs:
        before = run.warm.steps_done, cold.last_served
        was_loading = run.is_loading(cold)
        run.engine.tick()
        if was_loading:
            order += ["step"] * (run.warm.steps_done - before[0]) + ["slice"] * (cold.last_served != before[1])
    slice_count = order.count("slice")
    assert slice_count > 10
    assert order.count("step") >= slice_count - 1
    assert ("slice", "slice") not in pairwise(order)
    assert run.files(run.warm, cold) == [expected["warm"], expected["cold"]]
    assert run.warm.usage.failed_plans == cold.usage.failed_plans == []
    assert run.is_clean()


def test_a_job_that_is_cancelled_while_its_model_is_loaded_ends_at_once_and_the_next_one_loads_it_anew(
    catalogue: Catalogue, storage: Storage, expected: dict[str, list[bytes]]
) -> None:
    run, watch = Running(catalogue, storage), RecordingWatch()
    (cold,) = run.start(_cold(catalogue), watch=watch)
    run.begin_loading(cold)
    (other,) = run.start(_cold(catalogue), name="other")
    watch.reason = JobStopped()
    assert run.engine.tick() == [cold]
    assert isinstance(cold.coroutine.error, JobStopped)
    assert run.pool.warm == ["shapes-sdxl"]
    run.end()
    assert run.files(run.warm, other) == [expected["warm"], expected["cold"]]
    assert run.is_clean()


def test_a_worker_that_gives_its_jobs_up_during_a_load_keeps_nothing_of_it(
    catalogue: Catalogue, storage: Storage, expected: dict[str, list[bytes]]
) -> None:
    run = Running(catalogue, storage)
    unused = run.pool.unused_bytes
    (cold,) = run.start(_cold(catalogue))
    run.begin_loading(cold)
    assert run.pool.unused_bytes < unused - 2**20, "others may take the room that the model needs"
    assert run.engine.close() == [run.warm, cold]
    assert run.pool.warm == ["shapes-sdxl"]
    assert run.is_clean()
    assert complete_job(_cold(catalogue), run.pool, storage)[0] == expected["cold"]


def test_a_cold_model_that_cannot_be_loaded_fails_the_jobs_that_wait_for_it_and_no_other(
    catalogue: Catalogue, storage: Storage, tmp_path: Path, expected: dict[str, list[bytes]]
) -> None:
    run = Running(_with_gap(catalogue, tmp_path), storage)
    jobs = run.start(_cold(catalogue, seed=1))
    run.begin_loading(jobs[0])
    jobs += run.start(_cold(catalogue, seed=2), name="other")
    run.end()
    for job in jobs:
        assert job.result.error.code is FailureCode.MODEL_LOAD_FAILED
        assert "shapes-flux cannot be loaded: vae lacks weights" in job.result.error.message
    assert run.files(run.warm) == [expected["warm"]]
    assert run.pool.warm == ["shapes-sdxl"]
    assert run.is_clean()


def _with_gap(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with a FLUX whose last component lacks a weight."""
    source = Path(catalogue.root / catalogue.model("shapes-flux").source)
    shutil.copytree(source, folder / "flux")
    file = next((folder / "flux" / "vae").glob("*.safetensors"))
    tensors = load_file(file)
    tensors.pop(max(tensors))
    save_file(tensors, file)
    rows = [
        row.model_copy(update={"source": str(folder / "flux")}) if row.id == "shapes-flux" else row
        for row in catalogue.models
    ]
    return catalogue.model_copy(update={"models": tuple(rows)})


def test_cold_models_are_loaded_one_by_one_and_a_new_job_of_a_warm_model_begins_meanwhile(
    catalogue: Catalogue, storage: Storage, expected: dict[str, list[bytes]]
) -> None:
    run = Running(catalogue, storage)
    (first,) = run.start(_cold(catalogue))
    run.begin_loading(first)
    (second,) = run.start(make_job(catalogue, "sd3", num_inference_steps=2), name="second")
    (new,) = run.start(make_job(catalogue, "sdxl", num_inference_steps=1), name="new", tier=0)
    while not new.coroutine.dead:
        run.engine.tick()
    assert run.is_loading(first), "a job of a warm model waited for another model's load"
    while run.is_loading(first):
        assert second.last_served == 0
        run.engine.tick()
    run.end()
    assert run.files(run.warm, first) == [expected["warm"], expected["cold"]]
    assert second.result.status == "generated"
    assert {"shapes-sdxl", "shapes-flux", "shapes-sd3"} == set(run.pool.warm)


def test_a_load_is_as_urgent_as_the_jobs_that_wait_for_it(catalogue: Catalogue, storage: Storage) -> None:
    run = Running(catalogue, storage)
    (low,) = run.start(_cold(catalogue), tier=2)
    while not run.is_loading(low):  # a lower tier gets a share of the seconds
        run.engine.tick()
        assert not run.warm.coroutine.dead, "the lower tier's job did not begin: nothing was tested"
    (high,) = run.start(_cold(catalogue, seed=8), name="high", tier=0)
    before = run.warm.steps_done
    while run.is_loading(low):
        run.engine.tick()
    assert run.warm.steps_done <= before + 1
    run.end()
    assert _statuses([low, high]) == ["generated"] * 2


def _statuses(flights: Sequence[JobInFlight]) -> list[str]:
    return [flight.result.status for flight in flights]


def test_what_does_not_fit_beside_the_models_in_use_is_loaded_beside_them_and_moves_at_once(
    catalogue: Catalogue, storage: Storage, expected: dict[str, list[bytes]]
) -> None:
    run = Running(catalogue, storage, max_models=1, host_bytes=2**30)
    (cold,) = run.start(_cold(catalogue))
    run.begin_loading(cold)
    model = run.warm.placed.model if run.warm.placed else None
    assert model is not None
    moves = 0
    while run.is_loading(cold):
        assert model.placement.placement_of("unet") is Placement.DEVICE
        run.engine.tick()
        moves += 1
    run.end()
    assert moves > 5
    assert run.files(run.warm, cold) == [expected["warm"], expected["cold"]]
