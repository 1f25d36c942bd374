"""Fixtures of tests of routes that wait for their job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from contracts.jobs.records import JobRecord
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from tests.support.scripted_worker import ScriptedWorker


@pytest.fixture
def jobs(queue: JobQueue, worker: ScriptedWorker) -> Iterator[list[JobRecord]]:
    """The jobs so far; each is completed as soon as it is queued."""
    found: list[JobRecord] = []
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            claim = worker.claims.claim(ClaimCriteria())
            if claim is None:
                time.sleep(0.01)
            else:
                found.append(claim.job)
                worker.complete(claim)

    thread = threading.Thread(target=work)
    thread.start()
    yield found
    is_over.set()
    thread.join(60)


@pytest.fixture
def completed(queue: JobQueue, worker: ScriptedWorker) -> Callable[[], JobRecord]:
    """Complete the next job as soon as it is queued; returns a function that waits for it."""
    found: list[JobRecord] = []

    def work() -> None:
        claim = worker.claim_next()
        worker.complete(claim)
        found.append(claim.job)

    thread = threading.Thread(target=work)
    thread.start()

    def wait() -> JobRecord:
        thread.join(60)
        return found[0]

    return wait
