"""Files that no record names: found by listing the storage, and removed once they are old."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from contracts.errors import Unavailable
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from contracts.uploads.orphans import OrphanSweep
from contracts.uploads.retention import Retention
from tests.support.parameters import parameters

#: Some file systems and buckets keep times in whole seconds.
YOUNGER_SECONDS, OLDER_SECONDS = 3600.0, -2.0


def sweep(queue: JobQueue, storage: Storage, age_seconds: float = OLDER_SECONDS) -> None:
    OrphanSweep(queue.connection, storage, age_seconds).sweep()


def test_only_files_without_a_record_are_removed(queue: JobQueue, any_storage: Storage) -> None:
    retention = Retention(queue.connection, any_storage, 60)
    job = queue.submit(parameters())
    registered, used = retention.retain("ab" * 32, 60), retention.retain("cd" * 32, 60)
    queue.submit(parameters(image=used))
    kept = [f"images/{job.id}/1/0.png", registered, used, "inputs/readme.txt", "service/link-secret"]
    lost = ["images/" + "0" * 32 + "/1/0.png", "images/" + "0" * 32 + "/2/1.png", f"inputs/{'ef' * 32}.0a.png"]
    # The same content under a key that is no longer registered.
    lost.append(f"inputs/{'ab' * 32}.00000000.png")
    for key in (*kept, *lost):
        any_storage.write(key, b"x")

    sweep(queue, any_storage)

    assert all(any_storage.exists(key) for key in kept)
    assert not any(any_storage.exists(key) for key in lost)


def test_a_young_file_is_left_alone_since_its_record_may_be_about_to_come(
    queue: JobQueue,
    any_storage: Storage,
) -> None:
    any_storage.write("images/" + "0" * 32 + "/1/0.png", b"x")

    sweep(queue, any_storage, YOUNGER_SECONDS)

    assert any_storage.exists("images/" + "0" * 32 + "/1/0.png")


def test_unfinished_writes_and_empty_folders_are_removed_too(queue: JobQueue, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    part = tmp_path / "images" / ("0" * 32) / "1" / ".0.png.0123abcd.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"cut off")
    os.utime(part, (time.time() - 100, time.time() - 100))

    sweep(queue, storage, 60)

    assert list((tmp_path / "images").iterdir()) == []


def test_one_file_that_cannot_be_removed_holds_up_no_other(queue: JobQueue, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    first, second = ("images/" + digit * 32 + "/1/0.png" for digit in "12")
    storage.write(second, b"x")
    # Found as the part of a file whose name a folder has.
    (tmp_path / first).mkdir(parents=True)
    (tmp_path / first).with_name(".0.png.0123abcd.part").write_bytes(b"x")

    sweep(queue, storage)

    assert not storage.exists(second)
    assert (tmp_path / first).is_dir()


def test_nothing_is_removed_while_redis_does_not_answer(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("images/" + "0" * 32 + "/1/0.png", b"x")
    away = JobQueue(SharedSettings(redis_url="redis://127.0.0.1:1/0"))

    with pytest.raises(Unavailable):
        sweep(away, storage)

    assert storage.exists("images/" + "0" * 32 + "/1/0.png")
