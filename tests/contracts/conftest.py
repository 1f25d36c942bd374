"""Workers' sides of the queue, on the test's own Redis."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts.queue.client import JobQueue
from contracts.queue.leases import Claims
from contracts.settings import QueueSettings

Enlist = Callable[..., Claims]


@pytest.fixture
def enlist(queue: JobQueue) -> Enlist:
    """Makes the claims of a worker; keywords are queue settings."""

    def make(worker: str = "first", **settings: float) -> Claims:
        return Claims(queue.connection, QueueSettings(**settings), worker, ttl_seconds=3600)  # type: ignore[arg-type]

    return make
