"""Readiness costs one check a second, however many ask, and follows what happens."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.disk_space import DiskSpace
from app.readiness import Readiness
from contracts.queue.client import JobQueue
from contracts.queue.workers import WorkerReport, publish
from contracts.storage.local import LocalStorage


class CountingStorage(LocalStorage):
    """Counts how often it is checked."""

    checks = 0

    def check(self) -> None:
        self.checks += 1
        super().check()


def test_many_who_ask_at_one_moment_share_a_check(queue: JobQueue, tmp_path: Path) -> None:
    storage = CountingStorage(tmp_path)
    readiness = Readiness(queue.connection, storage, DiskSpace(storage, 0), queue.replicas)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: readiness.missing(), range(200)))

    assert {tuple(answer) for answer in answers} == {("workers",)}
    assert storage.checks < 20


def test_the_answer_is_renewed(queue: JobQueue, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    readiness = Readiness(queue.connection, storage, DiskSpace(storage, 0), queue.replicas)
    assert list(readiness.missing()) == ["workers"]

    publish(queue.connection, WorkerReport(id="w", state="idle"), ttl_seconds=60)

    deadline = time.monotonic() + 30
    while readiness.missing():
        assert time.monotonic() < deadline
        time.sleep(0.05)
