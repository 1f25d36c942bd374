"""Consumers in this process, on a real Redis, that work until some jobs have ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from redis import Redis

from contracts.catalogue.catalogue import Catalogue
from contracts.jobs.records import JobRecord
from contracts.leases.claims import Claims
from contracts.metrics import Counters
from contracts.queue.client import JobQueue
from contracts.redis.connection import connect
from contracts.settings import QueueSettings, SharedSettings
from contracts.storage import Storage
from contracts.tracing.tracing import NO_TRACING, Tracing
from worker.loop.consumer import Consumer
from worker.loop.progress import JobWatch
from worker.loop.resources import WorkerResources
from worker.pool.pool import Pool
from worker.safety.opening import open_safety
from worker.settings import WorkerSettings

#: Long enough for a step of the shapes model on a busy machine, short enough to be waited for.
LEASE_SECONDS = 2.0

_connections: list[Redis] = []


def only(catalogue: Catalogue, *families: str) -> Catalogue:
    """The catalogue without models and ControlNets of others: each start of a consumer rehearses all rows."""
    models = tuple(row for row in catalogue.models if row.family in families)
    controlnets = tuple(row for row in catalogue.controlnets if row.family in families)
    rows = {"models": models, "controlnets": controlnets, "default_model": models[0].id}
    return catalogue.model_copy(update=rows)


def make_consumer(
    shared: SharedSettings,
    pool: Pool,
    storage: Storage,
    counters: Counters | None = None,
    overdue_seconds: float = 30.0,
    tracing: Tracing = NO_TRACING,
    **settings: object,
) -> Consumer:
    own = WorkerSettings(**{"residency_seconds": 0.0, **settings})  # type: ignore[arg-type]
    connection = connect(shared.redis_url, timeout_seconds=5, retries=0)
    rules = QueueSettings(lease_seconds=LEASE_SECONDS, overdue_seconds=overdue_seconds)
    claims = Claims(connection, rules, own.name, shared.result_ttl_seconds)
    rq_connection = connect(shared.redis_url, timeout_seconds=5, retries=1, decode=False)
    _connections.extend([connection, rq_connection])
    counters = counters or Counters()
    safety = open_safety(own, pool.fetcher.locate)
    return Consumer(
        WorkerResources(rq_connection, claims, pool, storage, own, counters, safety=safety, tracing=tracing)
    )


def close_connections() -> None:
    """Close what the consumers so far have opened: a process would end with them, these tests go on."""
    while _connections:
        _connections.pop().close()


@contextmanager
def after_each_step(act: Callable[[str, int], object]) -> Iterator[None]:
    """While the block runs, do something after each step of each job: it is given the job's id and the step.

    That happens in the worker's thread, so that no job goes on before it is done.
    """
    report = JobWatch.step

    def step_and_act(watch: JobWatch, step: int, steps: int) -> None:
        report(watch, step, steps)
        act(watch.claim.job.id, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobWatch, "step", step_and_act)
        yield


def at_step(number: int, job_id: str, act: Callable[[], object]) -> AbstractContextManager[None]:
    """While the block runs, do something in the worker's thread when a job has made its step of this number."""
    return after_each_step(lambda id, step: act() if (id, step) == (job_id, number) else None)


def send_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def work_until_ended(consumer: Consumer, queue: JobQueue, *ids: str) -> list[JobRecord]:
    """Run the consumer in this thread, as its process would, until the jobs have ended; then SIGTERM."""

    over = threading.Event()

    def stop() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not all(queue.fetch(id).state.is_final for id in ids):
            if over.wait(0.05):  # each question takes processor time from the worker
                return
        send_sigterm()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        consumer.start([])
    finally:  # as above
        over.set()
        stopper.join()
    return [queue.fetch(id) for id in ids]
