"""Warm models go on while cold ones, and ControlNets, are made ready; on a real Redis, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobState
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.jobs import complete_job, make_job
from tests.support.parameters import parameters
from tests.support.workers import make_consumer, only, send_sigterm, work_until_ended
from worker.checkpoints.places import PreparationWatch
from worker.pool.pool import Pool


class SlowDisk:
    """Lets a model's files be read only once it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        """From here on, until `patch` is undone."""
        self.begun, self.gate = threading.Event(), threading.Event()
        self.read: list[str] = []
        prepare = Pool.prepare

        def wait_and_prepare(pool: Pool, id: str, watch: PreparationWatch) -> None:
            self.begun.set()
            assert self.gate.wait(120), f"{id} waited for ever"
            prepare(pool, id, watch)
            self.read.append(id)

        patch.setattr(Pool, "prepare", wait_and_prepare)

    @contextmanager
    def opened_after(
        self, queue: JobQueue, ended: Sequence[str], watched: Sequence[str]
    ) -> Iterator[list[JobState]]:
        """While the block runs: once these jobs have ended, note the states of the watched, and open the gate."""
        states: list[JobState] = []

        def open_gate() -> None:
            deadline = time.monotonic() + 120
            while not all(queue.fetch(id).state.is_final for id in ended) and time.monotonic() < deadline:
                time.sleep(0.01)
            states.extend(queue.fetch(id).state for id in watched)
            self.gate.set()

        opener = threading.Thread(target=open_gate)
        opener.start()
        yield states
        opener.join()


def test_a_warm_models_jobs_go_on_while_a_cold_model_is_made_ready(
    settings: SharedSettings,
    queue: JobQueue,
    storage: Storage,
    catalogue: Catalogue,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every job is overdue, and the cold model's are the oldest: it is their turn, and they are not ready."""
    warm_request, cold_request = make_job(catalogue, "sana"), make_job(catalogue, "pixart")
    expected = [complete_job(request, pool, storage)[0] for request in (warm_request, cold_request)]
    disk, own = SlowDisk(monkeypatch), Pool(only(catalogue, "sana", "pixart"), device="cpu")
    own.model(warm_request.model)
    cold = [queue.submit(cold_request).id for _ in range(2)]
    warm = [queue.submit(warm_request).id for _ in range(3)]

    with disk.opened_after(queue, warm, watched=[*cold, *warm]) as states:
        ended = work_until_ended(make_consumer(settings, own, storage, overdue_seconds=0), queue, *cold, *warm)
    assert states == [JobState.QUEUED] * 2 + [JobState.COMPLETED] * 3
    files = [[storage.read(image.key) for image in record.images] for record in ended]
    assert files == [expected[1]] * 2 + [expected[0]] * 3
    assert disk.read == [cold_request.model]
    assert {record.attempts for record in ended} == {1}


def test_a_warm_models_jobs_go_on_while_a_controlnet_is_made_ready(
    settings: SharedSettings,
    queue: JobQueue,
    storage: Storage,
    catalogue: Catalogue,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One client's jobs for one model; the first names a ControlNet that nobody has used before."""
    plain, controlled = make_job(catalogue, "sana"), make_job(catalogue, "sana", Mode.CONTROLNET)
    expected = [complete_job(request, pool, storage)[0] for request in (controlled, plain, plain)]
    disk, own = SlowDisk(monkeypatch), Pool(only(catalogue, "sana"), device="cpu")
    own.model(plain.model)
    ids = [queue.submit(request).id for request in (controlled, plain, plain)]
    with disk.opened_after(queue, ids[1:], watched=ids[:1]) as states:
        ended = work_until_ended(make_consumer(settings, own, storage), queue, *ids)
    assert states == [JobState.QUEUED]
    assert [[storage.read(image.key) for image in record.images] for record in ended] == expected
    assert disk.read == ["controlnet:sana-hint"]


@pytest.mark.parametrize(("host_bytes", "times"), [(0, 2), (2**30, 1)])
def test_a_model_that_was_dropped_is_made_ready_again_and_one_that_was_moved_to_host_memory_is_not(
    host_bytes: int,
    times: int,
    settings: SharedSettings,
    queue: JobQueue,
    storage: Storage,
    catalogue: Catalogue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, states = SlowDisk(monkeypatch), []
    disk.gate.set()
    pool = Pool(only(catalogue, "sana", "pixart"), device="cpu", max_models=1, host_bytes=host_bytes)
    consumer = make_consumer(settings, pool, storage)

    def lead() -> None:
        for family in ("sana", "pixart", "sana"):
            id, deadline = queue.submit(make_job(catalogue, family)).id, time.monotonic() + 60
            while not queue.fetch(id).state.is_final and time.monotonic() < deadline:
                time.sleep(0.01)
            states.append(queue.fetch(id).state)
        send_sigterm()

    leader = threading.Thread(target=lead)
    leader.start()
    consumer.start([])
    leader.join()
    assert states == [JobState.COMPLETED] * 3
    assert (disk.read.count("tiny-sana"), disk.read.count("tiny-pixart")) == (times, 1)


def test_a_worker_that_is_told_to_leave_waits_for_no_model(
    settings: SharedSettings,
    queue: JobQueue,
    catalogue: Catalogue,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, pool = SlowDisk(monkeypatch), Pool(only(catalogue, "sana"), device="cpu")
    job = queue.submit(parameters(model="unheard-of"))

    def leave() -> None:
        disk.begun.wait(60)
        send_sigterm()

    leaver = threading.Thread(target=leave)
    leaver.start()
    make_consumer(settings, pool, storage).start([])
    leaver.join()
    record = queue.fetch(job.id)
    assert (record.state, record.attempts, disk.read) == (JobState.QUEUED, 0, [])
    disk.gate.set()


def test_the_jobs_of_a_model_that_cannot_be_made_ready_fail_by_name(
    settings: SharedSettings, queue: JobQueue, storage: Storage, catalogue: Catalogue, tmp_path: Path
) -> None:
    whole = only(catalogue, "sdxl", "sana")
    rows = [row.model_copy(update={"source": str(tmp_path / "nowhere")}) for row in whole.models[:1]]
    broken = whole.model_copy(update={"models": (*rows, *whole.models[1:])})
    jobs = [queue.submit(parameters(model=rows[0].id, batchable=False)).id for _ in range(2)]
    ended = work_until_ended(make_consumer(settings, Pool(broken, device="cpu"), storage), queue, *jobs)
    for record in ended:
        assert record.error is not None
        assert record.error.code is FailureCode.MODEL_LOAD_FAILED
        assert record.error.message.startswith(f"{rows[0].id} cannot be loaded")
