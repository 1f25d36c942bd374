"""Workers' reports: seen while they are fresh, gone when the worker is silent or leaves."""

from __future__ import annotations

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
