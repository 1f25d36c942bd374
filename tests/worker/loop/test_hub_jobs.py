"""Jobs whose files are on a hub: a real Redis, a consumer in this process, and the stand-in hub."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec
from contracts.catalogue.families import Mode
from contracts.jobs.events import read_events
from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.hub import Hub, serving, use_hub
from tests.support.hub_http import Fault
from tests.support.hub_repositories import checkpoint, controlnet, loras, with_class
from tests.support.jobs import make_job
from tests.support.waiting import wait_until
from tests.support.workers import make_consumer, send_sigterm, work_until_ended
from worker.loop.consumer import Consumer
from worker.pool.pool import Pool

#: Instead of a port: the tests' Redis listens on a Unix socket.
_REDIS = 0
#: Threads and ports of the connections that were made while a list is here.
_connections: list[tuple[str, int]] | None = None


def _note_connection(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and _connections is not None:
        address = arguments[1]
        port = address[1] if isinstance(address, tuple) else _REDIS
        _connections.append((threading.current_thread().name, port))


sys.addaudithook(_note_connection)


@pytest.fixture
def connections() -> Iterator[list[tuple[str, int]]]:
    """The connections that are made from now on: thread and port."""
    global _connections  # an audit hook cannot be removed
    _connections = []
    yield _connections
    _connections = None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with an SDXL checkpoint, a LoRA and a ControlNet for it, and an empty cache."""
    with serving() as hub:
        hub.commit("org/sdxl", checkpoint())
        hub.commit("org/tint", loras("tint"))
        hub.commit("org/lines", controlnet())
        use_hub(monkeypatch, hub, tmp_path / "hub")
        yield hub


@pytest.fixture
def on_hub(catalogue: Catalogue) -> Catalogue:
    """A catalogue whose model, LoRA and ControlNet for SDXL are on the hub; that for FLUX is on this machine."""
    sdxl, *others = catalogue.models
    assert sdxl.family == "sdxl"
    return catalogue.model_copy(
        update={
            "models": (sdxl.model_copy(update={"source": "org/sdxl"}), *others),
            "loras": (LoraSpec(id="tint", family="sdxl", source="org/tint"),),
            "controlnets": (ControlNetSpec(id="sdxl-hint", family="sdxl", source="org/lines"),),
        }
    )


@pytest.fixture
def hub_lora(shipped: Catalogue) -> Catalogue:
    """A catalogue of which nothing but a LoRA for SDXL is on the hub."""
    return shipped.model_copy(update={"loras": (LoraSpec(id="tint", family="sdxl", source="org/tint"),)})


@pytest.fixture
def consume(settings: SharedSettings, storage: Storage, queue: JobQueue) -> Callable[..., list[JobRecord]]:
    """Runs a worker until jobs have ended; options are its settings."""

    def run(catalogue: Catalogue, *ids: str, **options: Any) -> list[JobRecord]:
        consumer = make_consumer(settings, Pool(catalogue, device="cpu"), storage, **options)
        return work_until_ended(consumer, queue, *ids)

    return run


def run_until(consumer: Consumer, condition: Callable[[], object], warm: Sequence[str] = ()) -> None:
    """Run the consumer in this thread until the condition is true; then SIGTERM."""
    failures: list[BaseException] = []

    def stop() -> None:
        try:
            wait_until(condition)
        except BaseException as error:  # noqa: BLE001  # raised below
            failures.append(error)
        send_sigterm()

    stopper = threading.Thread(target=stop)
    stopper.start()
    consumer.start(warm)
    stopper.join()
    if failures:
        raise failures[0]


def test_the_thread_that_runs_the_jobs_asks_no_hub_for_any_kind_of_file(
    hub: Hub,
    on_hub: Catalogue,
    queue: JobQueue,
    consume: Callable[..., list[JobRecord]],
    connections: list[tuple[str, int]],
) -> None:
    styled = queue.submit(make_job(on_hub, "sdxl", loras=[{"name": "tint"}])).id
    controlled = queue.submit(make_job(on_hub, "sdxl", Mode.CONTROLNET)).id
    ended = consume(on_hub, styled, controlled)
    assert [record.state for record in ended] == [JobState.COMPLETED] * 2
    own = {port for thread, port in connections if thread == threading.current_thread().name}
    assert own == {_REDIS}
    assert hub.port in {port for _, port in connections}

    fetched = len(hub.requests)
    again = queue.submit(make_job(on_hub, "sdxl", loras=[{"name": "tint"}], seed=8)).id
    (record,) = consume(on_hub, again)  # another process, with the same cache
    assert (record.state, hub.requests[fetched:]) == (JobState.COMPLETED, [])


def test_other_jobs_go_on_while_a_lora_comes_slowly_from_a_hub(
    hub: Hub, on_hub: Catalogue, queue: JobQueue, consume: Callable[..., list[JobRecord]]
) -> None:
    local = on_hub.model_copy(update={"models": on_hub.models[1:], "default_model": on_hub.models[1].id})
    flux_lora = LoraSpec(id="far", family="flux", source="org/tint")
    local = local.model_copy(update={"loras": (flux_lora,), "controlnets": ()})
    hub.faults = [Fault(path="/resolve/", is_silent=True)]
    waiting = queue.submit(make_job(local, "flux", loras=[{"name": "far"}])).id
    plain = queue.submit(make_job(local, "flux")).id
    (record,) = consume(local, plain)
    assert record.state is JobState.COMPLETED
    assert queue.fetch(waiting).state is JobState.QUEUED


def test_a_job_outlives_an_outage_of_the_hub_and_is_told_of_it(
    hub: Hub, on_hub: Catalogue, queue: JobQueue, settings: SharedSettings, storage: Storage
) -> None:
    hub.faults = [Fault(path="/", status=503)]
    id = queue.submit(make_job(on_hub, "sdxl")).id
    consumer = make_consumer(settings, Pool(on_hub, device="cpu"), storage)

    def is_over() -> bool:
        record = queue.fetch(id)
        if record.preparing is not None and record.preparing.state == "retrying":
            assert record.state is JobState.QUEUED
            assert "status 503" in record.preparing.message
            hub.faults = []
        return record.state.is_final

    run_until(consumer, is_over)
    record = queue.fetch(id)
    assert (record.state, record.attempts) == (JobState.COMPLETED, 1)
    states = [event.data["state"] for event in read_events(queue.connection, id) if event.kind == "preparing"]
    assert "retrying" in states


def test_an_outage_that_lasts_fails_the_job_with_what_the_hub_said(
    hub: Hub, on_hub: Catalogue, queue: JobQueue, consume: Callable[..., list[JobRecord]]
) -> None:
    hub.stop()
    id = queue.submit(make_job(on_hub, "sdxl")).id
    (record,) = consume(on_hub, id, download_retry_seconds=0)
    assert record.error is not None
    assert (record.error.code, record.error.retryable, record.attempts) == (FailureCode.FILES_UNAVAILABLE, True, 0)
    assert "org/sdxl" in record.error.message


def test_what_can_never_be_fetched_fails_its_jobs_at_once_before_any_weight_is_fetched(
    hub: Hub, on_hub: Catalogue, queue: JobQueue, consume: Callable[..., list[JobRecord]]
) -> None:
    hub.gates = {"org/tint": "a token"}
    hub.commit("org/sdxl", with_class(checkpoint(), "FluxPipeline"))
    missing = on_hub.controlnets[0].model_copy(update={"source": "org/nothing"})
    flux = on_hub.lora("tint").model_copy(update={"family": "flux"})
    changed = on_hub.model_copy(update={"controlnets": (missing,), "loras": (flux,)})
    jobs = [
        make_job(changed, "sdxl"),
        make_job(changed, "flux", loras=[{"name": "tint"}]),
        make_job(changed, "sdxl", Mode.CONTROLNET),
    ]
    ids = [queue.submit(job).id for job in jobs]
    ended = consume(changed, *ids)
    messages = [record.error.message if record.error else "" for record in ended]
    assert [record.attempts for record in ended] == [0, 0, 0]
    assert "FluxPipeline" in messages[0]
    assert messages[1] == (
        "LoRA tint cannot be loaded: org/tint is gated: accept its terms on the hub and set HF_TOKEN "
        "for the worker"
    )
    assert not any(name.endswith(".safetensors") for name in hub.fetched("org/sdxl"))
    assert ended[1].error is not None
    assert ended[1].error.code is FailureCode.LORA_MISSING


def test_a_file_that_is_gone_is_fetched_again_and_its_job_loses_no_attempt(
    hub: Hub,
    hub_lora: Catalogue,
    queue: JobQueue,
    settings: SharedSettings,
    storage: Storage,
    tmp_path: Path,
) -> None:
    ids = [queue.submit(make_job(hub_lora, "sdxl", loras=[{"name": "tint"}])).id]

    def is_over() -> bool:
        if not queue.fetch(ids[-1]).state.is_final:
            return False
        if len(ids) == 1:
            shutil.rmtree(tmp_path / "hub")
            ids.append(queue.submit(make_job(hub_lora, "sdxl", loras=[{"name": "tint"}])).id)
        return queue.fetch(ids[-1]).state.is_final

    run_until(make_consumer(settings, Pool(hub_lora, device="cpu"), storage), is_over)
    ended = [queue.fetch(id) for id in ids]
    assert [(record.state, record.attempts) for record in ended] == [(JobState.COMPLETED, 1)] * 2


def test_a_job_of_a_release_that_did_not_list_its_loras_runs_once_they_are_here(
    hub: Hub, hub_lora: Catalogue, queue: JobQueue, consume: Callable[..., list[JobRecord]]
) -> None:
    id = queue.submit(make_job(hub_lora, "sdxl", loras=[{"name": "tint"}])).id
    queue.connection.hset(f"darkroom:job:{id}", "needs", '["shapes-sdxl"]')
    (record,) = consume(hub_lora, id)
    assert (record.state, record.attempts) == (JobState.COMPLETED, 1)
    assert len(hub.fetched("org/tint")) == 1


def test_a_job_whose_lora_cannot_be_had_waits_for_no_model(
    hub: Hub, on_hub: Catalogue, queue: JobQueue, consume: Callable[..., list[JobRecord]]
) -> None:
    hub.gates = {"org/tint": "a token"}
    hub.faults = [Fault(path="org/sdxl/resolve", is_silent=True)]
    plain = queue.submit(make_job(on_hub, "sdxl")).id  # for which the model is fetched
    id = queue.submit(make_job(on_hub, "sdxl", loras=[{"name": "tint"}])).id
    (record,) = consume(on_hub, id)
    assert record.error is not None
    assert record.error.code is FailureCode.LORA_MISSING
    assert queue.fetch(plain).state is JobState.QUEUED


def test_a_model_of_the_warm_list_that_must_be_downloaded_keeps_no_job_waiting(
    hub: Hub, on_hub: Catalogue, queue: JobQueue, settings: SharedSettings, storage: Storage
) -> None:
    hub.stop()
    pool = Pool(on_hub, device="cpu")
    consumer = make_consumer(settings, pool, storage)
    id = queue.submit(make_job(on_hub, "flux")).id

    def is_warm() -> bool:
        if queue.fetch(id).state is JobState.COMPLETED and hub.stopping.is_set():
            hub.start()
        return "shapes-sdxl" in pool.warm

    run_until(consumer, is_warm, warm=["shapes-sdxl"])
    assert queue.fetch(id).state is JobState.COMPLETED
