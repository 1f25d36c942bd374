"""Readiness costs one check a second, however many ask, and follows what happens."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.limits.disk_space import DiskSpace
from app.monitoring.readiness import Readiness
from contracts.jobs.preparations import Preparation
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.storage.local import LocalStorage

MODEL = "the-default"


class CountingStorage(LocalStorage):
    """Counts how often it is checked."""

    checks = 0

    def check(self) -> None:
        self.checks += 1
        super().check()


def test_many_who_ask_at_one_moment_share_a_check(queue: JobQueue, tmp_path: Path) -> None:
    storage = CountingStorage(tmp_path)
    readiness = Readiness(queue.connection, storage, DiskSpace(storage, 0), queue.replicas, MODEL)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: readiness.missing(), range(200)))

    assert {tuple(answer) for answer in answers} == {("workers",)}
    assert storage.checks < 20


def test_the_answer_is_renewed(queue: JobQueue, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    readiness = Readiness(queue.connection, storage, DiskSpace(storage, 0), queue.replicas, MODEL)
    assert list(readiness.missing()) == ["workers"]

    publish(queue.connection, WorkerReport(id="w", state="idle"), ttl_seconds=60)

    deadline = time.monotonic() + 60
    while readiness.missing():
        assert time.monotonic() < deadline
        time.sleep(0.05)


FETCHING = Preparation(name=MODEL, state="fetching")
READING = Preparation(name=MODEL, state="reading")
FAILED = Preparation(name=MODEL, state="failed", message="its hub is at https://internal.example")


@pytest.mark.parametrize(
    ("reports", "told"),
    [
        ([{"preparing": [FETCHING]}], "no worker can use the default model yet: fetching"),
        ([{"preparing": [FETCHING]}, {"preparing": [FAILED]}], "yet: fetching, failed"),
        ([{"preparing": [FAILED], "ready": [MODEL]}], "yet: failed"),
        ([{"preparing": [FETCHING]}, {"ready": [MODEL]}], None),
        ([{"preparing": [FETCHING]}, {}], None),
        ([{"preparing": [READING], "ready": [MODEL]}], None),
        ([{"preparing": [READING]}], "yet: reading"),
        ([{"preparing": [FETCHING], "warm": [MODEL]}], None),
        ([{"preparing": [Preparation(name="another", state="failed")]}], None),
    ],
)
def test_a_default_model_that_no_worker_can_use_is_told_without_details(
    reports: list[dict[str, Any]], told: str | None, queue: JobQueue, tmp_path: Path
) -> None:
    storage = LocalStorage(tmp_path)
    readiness = Readiness(queue.connection, storage, DiskSpace(storage, 0), queue.replicas, MODEL)
    for number, fields in enumerate(reports):
        publish(queue.connection, WorkerReport(id=f"w{number}", state="idle", **fields), ttl_seconds=60)
    missing = readiness.missing()
    if told is None:
        assert missing == {}
    else:
        assert missing["models"].endswith(told)
        assert not any(secret in missing["models"] for secret in ("example", MODEL))
