"""Reports of workers with a given memory budget, for tests of what the API does with them."""

from __future__ import annotations

from typing import Any

from contracts.catalogue.reader import read_catalogue
from contracts.memory.planner import take_capacity
from contracts.memory.policy import Policy
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.settings import BUILT_IN_CATALOGUE

MIB = 2**20
LARGE: dict[str, Any] = {"model": "shapes-sdxl", "prompt": "a red circle", "width": 256, "height": 256}


def report_worker(queue: JobQueue, id: str, budget_mib: float | None, **fields: Any) -> None:
    """Publish the report of a live worker with this budget; without one, of a worker that does not say it."""
    capacity = None
    if budget_mib is not None:
        catalogue = read_catalogue(BUILT_IN_CATALOGUE)
        capacity = take_capacity(catalogue, int(budget_mib * MIB), Policy(), lambda _: 4)
    state = {"state": "idle", **fields}
    publish(queue.connection, WorkerReport(id=id, capacity=capacity, **state), ttl_seconds=60)
