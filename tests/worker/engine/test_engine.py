"""The engine: whose call is next, what happens when memory runs out, and that nothing is left behind."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.metrics import Counters
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.combinations import ALL
from tests.support.jobs import (
    RecordingWatch,
    complete_job,
    decode_pixels,
    generate_pixels,
    make_job,
    start_jobs,
    store_result,
)
from worker.engine.coroutine import Coroutine
from worker.engine.costs import CallCosts
from worker.engine.engine import Engine
from worker.engine.job import Job, JobInFlight
from worker.engine.policy import Waiting
from worker.engine.views import view
from worker.pool.pool import Pool


class Cancelled(BaseException):
    """Thrown into a job."""


@contextmanager
def failing_calls(module: torch.nn.Module, fails: Callable[[int], Exception | None]) -> Iterator[list[int]]:
    """Inside, calls of a module raise what `fails` returns for their rows; yields the rows of all calls."""
    rows: list[int] = []

    def before(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = args[0] if args else kwargs["sample" if "sample" in kwargs else "hidden_states"]
        rows.append(len(first))
        error = fails(len(first))
        if error is not None:
            raise error

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


class JoinAll:
    """Serves first what no call can share, then all that can share one."""

    def choose(
        self, waiting: Sequence[Waiting], costs: CallCosts, max_rows: int, buckets: object = None
    ) -> list[Waiting]:
        del costs, max_rows, buckets
        first = min(waiting, key=lambda call: call.key is not None)
        return [call for call in waiting if call is first or (call.key is not None and call.key == first.key)]

    def served(self, calls: Sequence[Waiting], seconds: float) -> None:
        del calls, seconds


def _same(reason: BaseException | None) -> BaseException | None:
    return reason


def run_joined(
    jobs: Sequence[JobParameters], pool: Pool, storage: Storage, watch: RecordingWatch | None = None
) -> list[Any]:
    """Run jobs that share every call they can share; returns their results."""
    engine = Engine(pool, JoinAll())
    flights = start_jobs(jobs, engine, pool, storage, watch)
    while engine.jobs:
        engine.tick()
    return [store_result(flight, storage) for flight in flights]


def test_out_of_memory_in_a_joined_call_splits_it_and_no_job_begins_again(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    jobs = [make_job(catalogue, "sdxl", seed=seed, batchable=True, num_inference_steps=2) for seed in range(3)]
    alone = [generate_pixels(job, pool, storage) for job in jobs]
    watch = RecordingWatch()

    def too_large(rows: int) -> Exception | None:
        return torch.OutOfMemoryError("too many rows") if rows > 2 else None

    with failing_calls(pool.model("shapes-sdxl").denoiser, too_large) as rows:
        results = run_joined(jobs, pool, storage, watch)

    assert max(rows) > 2, "no call was joined: nothing was tested"
    assert sorted(watch.seen) == sorted([(1, 2), (2, 2)] * 3)
    for result, expected in zip(results, alone, strict=True):
        assert result.receipt.memory.ran_out == []
        assert np.abs(decode_pixels(storage.read(result.stored[0].key)) - expected).max() <= 1


def test_one_jobs_call_that_no_plan_can_make_is_made_row_by_row(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, "sdxl", num_images=2, num_inference_steps=2)
    expected = generate_pixels(job, pool, storage)
    limited = Pool(catalogue, device="cpu", budget_bytes=2**30, counters=Counters())

    def too_large(rows: int) -> Exception | None:
        return torch.OutOfMemoryError("too many rows") if rows > 1 else None

    with failing_calls(limited.model("shapes-sdxl").denoiser, too_large):
        files, receipt = complete_job(job, limited, storage)

    assert receipt.memory is not None
    assert receipt.memory.ran_out == ["all resident"]
    assert np.abs(decode_pixels(files[0]) - expected).max() <= 1


def test_an_error_that_a_joined_call_raises_is_only_that_jobs_whose_call_raises_it_alone(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    jobs = [make_job(catalogue, "flux", seed=seed, batchable=True) for seed in range(3)]
    calls_alone = 0

    def fails(rows: int) -> Exception | None:
        nonlocal calls_alone
        calls_alone += rows == 1
        return RuntimeError("broken") if rows > 1 or calls_alone == 3 else None

    with failing_calls(pool.model("shapes-flux").denoiser, fails):
        results = run_joined(jobs, pool, storage)

    assert sorted(result.status for result in results) == ["completed", "completed", "failed"]


def test_a_job_of_a_higher_tier_makes_its_first_step_within_one_call_and_ends_first(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    engine = Engine(pool)
    low, high = (make_job(catalogue, "sdxl", num_inference_steps=steps, seed=1) for steps in (6, 2))
    expected = complete_job(low, pool, storage)[0]
    (running,) = start_jobs([low], engine, pool, storage, name="low", tier=2)
    while running.steps_done < 3:
        engine.tick()
    (urgent,) = start_jobs([high], engine, pool, storage, name="high", tier=0)
    while not urgent.coroutine.dead:
        engine.tick()
        assert running.steps_done <= 4
    assert urgent.steps_done == 2
    while engine.jobs:
        engine.tick()
    assert running.usage.pauses > 0
    assert [storage.read(image.key) for image in store_result(running, storage).stored] == expected


def test_jobs_of_two_models_take_turns(catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    jobs = [
        make_job(catalogue, family, num_inference_steps=steps) for family, steps in (("sdxl", 12), ("flux", 2))
    ]
    expected = [complete_job(job, pool, storage)[0] for job in jobs]
    engine = Engine(pool)
    long, short = start_jobs(jobs, engine, pool, storage)
    while not short.coroutine.dead:
        engine.tick()
    assert long.steps_done < 12, "the job of a warm model waited for the whole of another model's"
    while engine.jobs:
        engine.tick()
    results = [store_result(flight, storage) for flight in (long, short)]
    assert [[storage.read(image.key) for image in result.stored] for result in results] == expected


def test_a_closed_engine_gives_all_jobs_up_and_leaves_no_hook(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, "sdxl", loras=[{"name": "sdxl-lora"}], num_inference_steps=2)
    before = complete_job(job, pool, storage)[0]
    engine = Engine(pool)
    flights = start_jobs([job, job], engine, pool, storage)
    while not any(flight.steps_done for flight in flights):
        engine.tick()
    assert engine.close() == flights
    assert engine.jobs == []
    assert not pool.model("shapes-sdxl").adapters.is_active
    assert complete_job(job, pool, storage)[0] == before


def test_nothing_is_left_of_hundreds_of_jobs_that_joined_paused_failed_and_were_cancelled(
    catalogue: Catalogue, pool: Pool
) -> None:
    """Without the garbage collector: a coroutine that is given up is freed at once, and its tensors with it."""
    rng, module = random.Random(1), torch.nn.Linear(8, 8)
    parameters = make_job(catalogue, "sdxl", batchable=True)

    def work(flight: JobInFlight) -> float:
        layer = view(module)
        state = torch.zeros(1, 8)
        flight.coroutine.take_turn("load")
        for _ in range(3):
            state = layer(state)
        if rng.random() < 0.1:
            raise ValueError("broken")
        return float(state.sum())

    def run_some(count: int) -> None:
        engine = Engine(pool)
        while count or engine.jobs:
            if count and len(engine.jobs) < 8:
                reason = Cancelled() if rng.random() < 0.2 else None
                job = Job(f"job{count}", parameters, exact=rng.random() < 0.3)
                engine.start(job, work, partial(_same, reason))
                count -= 1
            engine.tick()

    def count_alive() -> tuple[int, int]:
        kinds = [type(thing) for thing in gc.get_objects()]
        tensors = sum(issubclass(kind, torch.Tensor) for kind in kinds)
        return tensors, sum(issubclass(kind, Coroutine | JobInFlight) for kind in kinds)

    run_some(50)
    gc.collect()
    before = count_alive()
    gc.disable()
    try:
        run_some(1000 if ALL else 300)
        assert count_alive() == before
    finally:
        gc.enable()
    assert not module._forward_hooks
    assert not module._forward_pre_hooks
