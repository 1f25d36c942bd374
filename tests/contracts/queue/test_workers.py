"""Workers' reports: seen while they are fresh, gone when the worker is silent or leaves."""

from __future__ import annotations

import json
import time

from contracts.queue.client import JobQueue
from contracts.queue.workers import WorkerReport, publish, read_workers, withdraw


def test_live_workers_are_listed_by_id(queue: JobQueue) -> None:
    for name in ("second", "first"):
        publish(queue.connection, WorkerReport(id=name, state="idle", warm=["shapes-sdxl"]), ttl_seconds=30)
    assert [(report.id, report.warm) for report in read_workers(queue.connection)] == [
        ("first", ["shapes-sdxl"]),
        ("second", ["shapes-sdxl"]),
    ]


def test_a_silent_worker_vanishes_and_one_that_leaves_does_so_at_once(queue: JobQueue) -> None:
    publish(queue.connection, WorkerReport(id="silent", state="idle"), ttl_seconds=1)
    publish(queue.connection, WorkerReport(id="leaving", state="idle"), ttl_seconds=30)
    withdraw(queue.connection, "leaving")
    assert [report.id for report in read_workers(queue.connection)] == ["silent"]
    time.sleep(1.1)
    assert read_workers(queue.connection) == []


def test_a_capacity_that_another_version_wrote_counts_as_unknown(queue: JobQueue) -> None:
    report = {"id": "older", "state": "idle", "capacity": {"budget_bytes": 1, "inventories": {}}}
    queue.connection.set("darkroom:worker:older", json.dumps(report))
    queue.connection.zadd("darkroom:workers", {"older": time.time()})
    assert [(worker.id, worker.capacity) for worker in read_workers(queue.connection)] == [("older", None)]
