"""Workers' sides of the queue, on the test's own Redis."""

from __future__ import annotations

import pytest

from contracts.queue.client import JobQueue
from contracts.queue.leases import Claims
from contracts.settings import QueueSettings
from tests.support.claims import MakeClaims


@pytest.fixture
def make_claims(queue: JobQueue) -> MakeClaims:
    """Makes the claims of a worker; keywords are queue settings."""

    def make(worker: str = "first", **settings: float) -> Claims:
        return Claims(queue.connection, QueueSettings(**settings), worker, ttl_seconds=3600)  # type: ignore[arg-type]

    return make
