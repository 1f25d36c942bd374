"""The bytes of each owner's files: counted as files come and go, limited exactly, and mended by a recount."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.errors import QuotaExceeded
from contracts.queue.client import JobQueue
from contracts.queue.limits import SubmitLimits
from contracts.storage import Storage
from contracts.uploads.owner_bytes import ByteLimit, OwnerBytes
from contracts.uploads.retention import Retention
from tests.support.parameters import parameters
from tests.support.scripted_worker import ScriptedWorker

SHA, OTHER_SHA = "ab" * 32, "cd" * 32
MAX_BYTES = 1_000_000


@pytest.fixture
def retention(queue: JobQueue, storage: Storage) -> Retention:
    return Retention(queue.connection, storage, gone_seconds=60)


@pytest.fixture
def counts(queue: JobQueue) -> OwnerBytes:
    return OwnerBytes(queue.connection)


def retain(retention: Retention, sha256: str, size_bytes: int, owner: str = "me") -> str:
    return retention.retain(sha256, 60, size_bytes=size_bytes, limit=ByteLimit(owner, MAX_BYTES))


def remove_inputs(queue: JobQueue, retention: Retention) -> None:
    for key in queue.connection.zrange("darkroom:inputs", 0, -1):
        queue.connection.zadd("darkroom:inputs", {str(key): 1})
    while retention.sweep():
        pass


def test_a_job_counts_as_what_it_may_store_then_as_what_it_has_stored_and_then_as_nothing(
    queue: JobQueue, storage: Storage, worker: ScriptedWorker, counts: OwnerBytes, retention: Retention
) -> None:
    id = queue.submit(parameters(), owner="me").id
    assert counts.total("me") == parameters().max_result_bytes > 64 * 64 * 3

    data = worker.complete(worker.claim())
    assert counts.total("me") == len(data)

    queue.connection.hset(f"darkroom:job:{id}", "expires_at", "1")
    queue.connection.zadd("darkroom:expiry", {id: 1})
    retention.sweep()
    assert counts.total("me") == 0
    assert not queue.connection.exists("darkroom:bytes", "darkroom:bytes:me")


def test_jobs_that_are_cancelled_or_deleted_count_no_longer(
    queue: JobQueue, worker: ScriptedWorker, counts: OwnerBytes
) -> None:
    done = queue.submit(parameters(), owner="me").id
    worker.complete(worker.claim())
    waiting = queue.submit(parameters(), owner="me").id

    queue.cancel(waiting)
    queue.delete(done)

    assert counts.total("me") == 0


def test_the_same_content_counts_once_for_each_owner_who_sends_it(
    retention: Retention, counts: OwnerBytes
) -> None:
    for owner in ("me", "me", "you"):
        retain(retention, SHA, 1000, owner)

    assert (counts.total("me"), counts.total("you"), counts.total("they")) == (1000, 1000, 0)


def test_what_exceeds_the_limit_changes_nothing_and_other_owners_are_not_concerned(
    queue: JobQueue, retention: Retention
) -> None:
    retain(retention, SHA, MAX_BYTES - 10)
    before = {key: queue.connection.dump(key) for key in queue.connection.scan_iter("*")}

    with pytest.raises(QuotaExceeded, match=f"take {MAX_BYTES - 10} of at most {MAX_BYTES} bytes"):
        retain(retention, OTHER_SHA, 11)
    with pytest.raises(QuotaExceeded, match="delete jobs or adapters"):
        queue.submit(parameters(), owner="me", limits=SubmitLimits(max_bytes=MAX_BYTES))

    assert {key: queue.connection.dump(key) for key in queue.connection.scan_iter("*")} == before
    retain(retention, OTHER_SHA, MAX_BYTES, "you")
    retain(retention, OTHER_SHA, 10)
    queue.submit(parameters(), owner="they", limits=SubmitLimits(max_bytes=MAX_BYTES))
    queue.submit(parameters(), owner="me", limits=SubmitLimits(max_bytes=0))  # no limit


def test_calls_at_the_same_moment_never_exceed_the_limit_together(
    retention: Retention, counts: OwnerBytes
) -> None:
    def send(number: int) -> bool:
        try:
            retain(retention, f"{number:064x}", 300_000)
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(send, range(16)))

    assert sum(accepted) == 3
    assert counts.total("me") == 900_000


def test_bytes_of_removed_inputs_are_found_before_a_call_is_refused(
    queue: JobQueue, retention: Retention, counts: OwnerBytes
) -> None:
    retain(retention, SHA, MAX_BYTES)
    remove_inputs(queue, retention)

    assert counts.run("me", lambda: retain(retention, OTHER_SHA, MAX_BYTES))
    with pytest.raises(QuotaExceeded):
        counts.run("me", lambda: retain(retention, "ef" * 32, 1))


def test_an_input_counts_as_long_as_a_job_uses_it(
    queue: JobQueue, retention: Retention, counts: OwnerBytes
) -> None:
    key = retain(retention, SHA, 1000)
    queue.submit(parameters(image=key), owner="me")
    remove_inputs(queue, retention)

    assert counts.recount("me") == 1000 + parameters().max_result_bytes


def test_a_recount_mends_sums_rows_of_nothing_and_lost_rows(
    queue: JobQueue, retention: Retention, counts: OwnerBytes, worker: ScriptedWorker
) -> None:
    retain(retention, SHA, 1000)
    queue.submit(parameters(), owner="me")
    data = worker.complete(worker.claim())
    queue.connection.hset("darkroom:bytes", "me", 10**15)
    queue.connection.hset("darkroom:bytes:me", mapping={"job:gone": 5, "input:gone": 6, "input:" + "0" * 64: 7})
    queue.connection.hset("darkroom:bytes:me", f"input:inputs/{'0' * 64}.00.png", 8)

    queue.connection.hset("darkroom:bytes:me", "job:odd", "many")
    queue.connection.zadd("darkroom:jobs:me", {"odd": 1, "other": 2})
    queue.connection.hset("darkroom:job:odd", "images", "no JSON")
    queue.connection.hset("darkroom:job:other", "images", '[{"size_bytes": null}]')
    queue.connection.hset("darkroom:loras:me", "odd", "no JSON")

    counts.recount_next()
    assert counts.total("me") == 1000 + len(data)

    queue.connection.delete("darkroom:bytes", "darkroom:bytes:me")
    assert counts.recount("me") == counts.total("me") == len(data)
