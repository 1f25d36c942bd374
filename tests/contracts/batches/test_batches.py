"""Batches and their files in Redis: fences, limits, and content that is kept while it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.batches import batches as batches_module
from contracts.batches.batches import BatchStore, LeaseLost
from contracts.batches.files import FileStore, StoredFile
from contracts.batches.records import Batch, BatchStatus, Round, StartedLine
from contracts.errors import Conflict, NotFound, QueueFull, QuotaExceeded
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.settings import SharedSettings
from contracts.storage import Storage
from contracts.uploads.owner_bytes import ByteLimit, OwnerBytes
from contracts.uploads.retention import Retention


@pytest.fixture
def retention(queue: JobQueue, storage: Storage, settings: SharedSettings) -> Retention:
    return Retention(queue.connection, storage, settings.gone_seconds)


@pytest.fixture
def files(queue: JobQueue, storage: Storage, retention: Retention) -> FileStore:
    return FileStore(queue.connection, storage, retention)


@pytest.fixture
def batches(queue: JobQueue, storage: Storage, retention: Retention) -> BatchStore:
    return BatchStore(queue.connection, storage, retention)


@pytest.fixture
def file(files: FileStore, tmp_path: Path) -> StoredFile:
    return add(files, tmp_path)


def add(files: FileStore, folder: Path, data: bytes = b"{}\n", max_bytes: int = 0) -> StoredFile:
    (folder / "requests").write_bytes(data)
    return files.add(folder / "requests", "me", "r.jsonl", "batch", 3600, ByteLimit("me", max_bytes))


def batch_of(file: StoredFile, id: str = "batch_0") -> Batch:
    return Batch(
        id=id, owner="me", api_key="k", base="", endpoint="/v1/images/generations", completion_window="24h",
        input_file_id=file.id, input_key=file.key, input_bytes=file.size_bytes, output_seconds=60,
    )  # fmt: skip


def test_a_process_that_lost_its_lease_changes_nothing(
    batches: BatchStore, file: StoredFile, queue: JobQueue
) -> None:
    created = batches.create(batch_of(file), 60)
    late = batches.claim()
    queue.connection.zadd(keys.BATCHES, {created.id: 0})
    present = batches.claim()
    assert late is not None
    assert present is not None
    assert late.token != present.token

    done = Round(fields={"total": 9}, started={1: StartedLine(job="j", custom_id="c")}, completed=1)
    with pytest.raises(LeaseLost):
        batches.commit(late, done)
    with pytest.raises(LeaseLost):
        batches.finish(late, BatchStatus.COMPLETED, [])
    batches.release(late, 0)

    assert (batches.fetch(created.id), batches.started(created.id)) == (created, {})
    assert batches.claim() is None
    batches.commit(present, done)
    assert (batches.fetch(created.id).total, list(batches.started(created.id))) == (9, [1])


def test_a_batch_that_is_cancelled_in_a_round_stays_so(batches: BatchStore, file: StoredFile) -> None:
    batch = batches.create(batch_of(file), 60)
    lease = batches.claim()
    assert lease is not None

    batches.cancel(batch.id, "me")
    fields = {"status": BatchStatus.FINALIZING, "outcome": BatchStatus.COMPLETED, "line": 1}
    batches.commit(lease, Round(fields=fields))

    found = batches.fetch(batch.id)
    assert (found.status, found.ending, found.line) == (BatchStatus.CANCELLING, BatchStatus.CANCELLED, 1)


def test_the_file_of_a_batch_is_kept_until_its_end(
    batches: BatchStore, files: FileStore, file: StoredFile, storage: Storage, retention: Retention
) -> None:
    batches.create(batch_of(file), 60)
    lease = batches.claim()
    assert lease is not None

    files.delete(file.id, "me")
    retention.sweep()
    assert storage.read(file.key) == b"{}\n"
    batches.finish(lease, BatchStatus.FAILED, [])
    retention.sweep()

    assert storage.find("inputs/") == []
    with pytest.raises(NotFound):
        batches.create(batch_of(file, "batch_1"), 60)


def test_parts_that_no_commit_names_are_swept(
    batches: BatchStore, file: StoredFile, storage: Storage, retention: Retention, tmp_path: Path, queue: JobQueue
) -> None:
    batch = batches.create(batch_of(file), 60)
    lease = batches.claim()
    assert lease is not None
    (tmp_path / "part").write_bytes(b"1\n")

    key = batches.write_part(lease, batch, "output", tmp_path / "part")
    batches.commit(lease, Round(parts={"output": key}))
    lost = batches.write_part(lease, batches.fetch(batch.id), "output", tmp_path / "part")

    assert (batches.parts(batch.id, "output"), batches.parts(batch.id, "error")) == ([key], [])
    assert float(str(queue.connection.zscore(keys.INPUTS, lost))) > queue.now()
    assert lost != key
    batches.finish(lease, BatchStatus.COMPLETED, [])
    retention.sweep()
    assert storage.find("inputs/") == sorted([file.key, lost])


def test_an_owner_has_a_limited_number_of_files_and_batches(
    batches: BatchStore, files: FileStore, file: StoredFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.batches.files.MAX_ENTRIES", 2)
    monkeypatch.setattr(batches_module, "MAX_ENTRIES", 2)
    monkeypatch.setattr(batches_module, "MAX_UNFINISHED", 1)

    add(files, tmp_path)
    with pytest.raises(Conflict, match="delete some"):
        add(files, tmp_path)
    for number in range(3):
        batches.create(batch_of(file, f"batch_{number}"), 60)
        with pytest.raises(QueueFull, match="1 of your batches"):
            batches.create(batch_of(file, "batch_9"), 60)
        lease = batches.claim()
        assert lease is not None
        batches.finish(lease, BatchStatus.COMPLETED, [])

    assert [batch.id for batch in batches.find_page("me", None, 9).entries] == ["batch_2", "batch_1"]


def test_a_file_counts_as_bytes_of_its_owner(
    files: FileStore, tmp_path: Path, queue: JobQueue, retention: Retention
) -> None:
    owner_bytes = OwnerBytes(queue.connection)
    first = add(files, tmp_path, b"x" * 60, 100)
    with pytest.raises(QuotaExceeded):
        add(files, tmp_path, b"x" * 60, 100)

    files.delete(first.id, "me")
    retention.sweep()

    assert owner_bytes.recount("me") == 0
    assert add(files, tmp_path, b"x" * 60, 100).size_bytes == 60
