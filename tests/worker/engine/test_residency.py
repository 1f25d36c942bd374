"""Models that do not fit the device together: a job in flight never loses its weights to another's."""

from __future__ import annotations

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from tests.support.jobs import JoinAll, complete_job, make_job, start_jobs, store_result
from worker.engine.engine import Engine
from worker.engine.job import JobInFlight
from worker.pool.pool import Pool


@pytest.fixture(scope="module")
def expected(catalogue: Catalogue, pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> list[list[bytes]]:
    """The files of both jobs, each alone."""
    storage = LocalStorage(tmp_path_factory.mktemp("alone"))
    return [complete_job(job, pool, storage)[0] for job in _jobs(catalogue)]


def _jobs(catalogue: Catalogue) -> list[JobParameters]:
    long = make_job(catalogue, "sdxl", num_inference_steps=6, loras=[{"name": "sdxl-lora"}])
    return [long, make_job(catalogue, "flux", num_inference_steps=2)]


def _start_both(catalogue: Catalogue, engine: Engine, pool: Pool, storage: Storage) -> list[JobInFlight]:
    """Start the short job, which is more urgent, once the long one has made two steps."""
    long, short = _jobs(catalogue)
    flights = start_jobs([long], engine, pool, storage, name="long")
    while flights[0].steps_done < 2:
        engine.tick()
    return [*flights, *start_jobs([short], engine, pool, storage, name="short", tier=0)]


def _files(flights: list[JobInFlight], storage: Storage) -> list[list[bytes]]:
    return [[storage.read(image.key) for image in store_result(flight, storage).stored] for flight in flights]


def test_a_job_whose_model_has_no_room_beside_one_in_use_waits_for_it(
    catalogue: Catalogue, storage: Storage, expected: list[list[bytes]]
) -> None:
    pool = Pool(catalogue, device="cpu", max_models=1)
    engine = Engine(pool)
    flights = _start_both(catalogue, engine, pool, storage)
    while not flights[0].coroutine.dead:
        engine.tick()
        assert pool.warm == ["shapes-sdxl"]
    assert flights[1].steps_done == 0
    while engine.jobs:
        engine.tick()
    assert pool.warm == ["shapes-flux"]
    assert _files(flights, storage) == expected


def test_with_room_in_host_memory_the_models_of_jobs_in_flight_change_places(
    catalogue: Catalogue, storage: Storage, expected: list[list[bytes]]
) -> None:
    pool = Pool(catalogue, device="cpu", max_models=1, host_bytes=2**30)
    engine = Engine(pool)
    flights = _start_both(catalogue, engine, pool, storage)
    while not flights[1].coroutine.dead:
        engine.tick()
    assert flights[0].steps_done < 6
    while engine.jobs:
        engine.tick()
    assert _files(flights, storage) == expected


def test_room_for_another_job_is_what_adapters_in_flight_leave(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    loras: list[list[dict[str, str]]] = [[], [{"name": "sdxl-lora"}], [{"name": "sdxl-lora"}]]
    plain, *adapted = (
        make_job(catalogue, "sdxl", num_inference_steps=6 if names else 2, loras=names) for names in loras
    )
    engine = Engine(pool, JoinAll())
    flights = start_jobs([plain, *adapted], engine, pool, storage)
    while not all(flight.steps_done for flight in flights):
        engine.tick()
    ((loaded, _),) = flights[1].adapters.adapters

    def adapter_bytes() -> int:
        return pool.kept_bytes - sum(flight.kept_bytes for flight in engine.jobs)

    # Each content counts once; the plan of the job without adapters counts none.
    assert adapter_bytes() == loaded.size_bytes > 0
    while not flights[0].coroutine.dead:
        engine.tick()
    assert adapter_bytes() == 0  # the plans of the others count what they name
    engine.close()
    assert pool.kept_bytes == 0
