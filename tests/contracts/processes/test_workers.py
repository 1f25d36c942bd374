"""Workers' reports: listed while fresh, gone when the worker is silent or stops."""

from __future__ import annotations

import json
import time

from contracts.processes.workers import WorkerReport, publish, read_workers, withdraw
from contracts.queue.client import JobQueue


def test_live_workers_are_listed_by_id(queue: JobQueue) -> None:
    for name in ("second", "first"):
        publish(queue.connection, WorkerReport(id=name, state="idle", warm=["shapes-sdxl"]), ttl_seconds=30)
    assert [(report.id, report.warm) for report in read_workers(queue.connection)] == [
        ("first", ["shapes-sdxl"]),
        ("second", ["shapes-sdxl"]),
    ]


def test_a_silent_workers_report_expires_and_a_stopping_workers_report_is_removed(queue: JobQueue) -> None:
    publish(queue.connection, WorkerReport(id="silent", state="idle"), ttl_seconds=1)
    publish(queue.connection, WorkerReport(id="stopping", state="idle"), ttl_seconds=30)
    withdraw(queue.connection, "stopping")
    assert [report.id for report in read_workers(queue.connection)] == ["silent"]
    time.sleep(1.1)
    assert read_workers(queue.connection) == []


def test_a_capacity_written_by_another_version_is_unknown(queue: JobQueue) -> None:
    report = {"id": "older", "state": "idle", "capacity": {"budget_bytes": 1, "inventories": {}}}
    queue.connection.set("darkroom:worker:older", json.dumps(report))
    queue.connection.zadd("darkroom:workers", {"older": time.time()})
    assert [(worker.id, worker.capacity) for worker in read_workers(queue.connection)] == [("older", None)]
