"""Expired jobs and unused inputs are removed, even if sweepers die; inputs in use stay. Real Redis and files."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from contracts.errors import Gone, NotFound, Unavailable
from contracts.jobs.records import CheckpointRecord, JobState, Progress
from contracts.leases.claim import Claim
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.redis.connection import Scripts
from contracts.requests.schema import Priority
from contracts.requests.training.parameters import ResumedTraining
from contracts.settings import SharedSettings
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from contracts.uploads.retention import Retention
from tests.support.claims import MakeClaims, take
from tests.support.disks import fill, redis_on_a_small_disk
from tests.support.parameters import parameters
from tests.support.scripted_worker import ScriptedWorker
from tests.support.training_plans import training

SHA = "ab" * 32
LEASE_SECONDS = 0.3

#: A sweeper that dies after removing the files of its fifth job, before it has removed that job's record.
SWEEP_AND_DIE = f"""
import os, signal, sys
from pathlib import Path
from contracts.redis.connection import connect
from contracts.uploads.retention import Retention
from contracts.settings import SharedSettings
from contracts.storage import open_storage
storage = open_storage(SharedSettings(redis_url=sys.argv[1], data=Path(sys.argv[2])))
clear, left = storage.clear, [5]
def clear_and_die(prefix):
    clear(prefix)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
storage.clear = clear_and_die
Retention(connect(sys.argv[1], timeout_seconds=5, retries=0), storage, 60, {LEASE_SECONDS}).sweep()
"""


@pytest.fixture
def retention(queue: JobQueue, storage: Storage) -> Retention:
    return Retention(queue.connection, storage, gone_seconds=60, lease_seconds=LEASE_SECONDS)


def complete(queue: JobQueue, storage: Storage, make_claims: MakeClaims, **changes: str) -> str:
    """Complete a job, with an image in the storage; returns its id."""
    id = queue.submit(parameters(**changes)).id
    claim = take(make_claims())
    end(storage, make_claims, claim)
    return id


def end(storage: Storage, make_claims: MakeClaims, claim: Claim) -> None:
    storage.write(f"images/{claim.job.id}/1/0.png", b"an image")
    assert make_claims().finish(claim, JobState.COMPLETED)


def let_expire(queue: JobQueue, *ids: str) -> None:
    """Make jobs expire."""
    for id in ids:
        queue.connection.hset(f"darkroom:job:{id}", "expires_at", "1")
        queue.connection.zadd("darkroom:expiry", {id: 1})


def end_retention(queue: JobQueue) -> None:
    """Make the retention time of all inputs end."""
    for key in queue.connection.zrange("darkroom:inputs", 0, -1):
        queue.connection.zadd("darkroom:inputs", {str(key): 1})


def sweep_all(retention: Retention) -> None:
    while retention.sweep():
        pass


def keys_of(queue: JobQueue) -> set[str]:
    return {str(key) for key in queue.connection.scan_iter("*")}


def test_nothing_is_swept_before_it_expires(
    queue: JobQueue, storage: Storage, retention: Retention, make_claims: MakeClaims
) -> None:
    id = complete(queue, storage, make_claims)
    waiting = queue.submit(parameters())

    assert retention.sweep() == 0
    assert queue.fetch(id).state is JobState.COMPLETED
    assert queue.fetch(waiting.id).state is JobState.QUEUED
    assert storage.exists(f"images/{id}/1/0.png")


def test_an_expired_job_is_gone_before_the_sweep(
    queue: JobQueue, storage: Storage, make_claims: MakeClaims
) -> None:
    id = complete(queue, storage, make_claims)
    let_expire(queue, id)

    with pytest.raises(Gone) as gone:
        queue.fetch(id)
    assert gone.value.owner == "local"


def test_an_expired_job_leaves_a_tombstone_and_then_nothing(
    queue: JobQueue, storage: Storage, retention: Retention, make_claims: MakeClaims
) -> None:
    id = complete(queue, storage, make_claims)
    let_expire(queue, id)

    sweep_all(retention)

    with pytest.raises(Gone):
        queue.fetch(id)
    assert storage.find("images/") == []
    assert [key for key in keys_of(queue) if id in key] == [f"darkroom:job:{id}"]
    assert queue.connection.zrange("darkroom:jobs:local", 0, -1) == []

    queue.connection.zadd("darkroom:expiry", {id: 1})
    sweep_all(retention)

    with pytest.raises(NotFound) as unknown:
        queue.fetch(id)
    assert not isinstance(unknown.value, Gone)
    assert {key for key in keys_of(queue) if not key.startswith("rq:queues")} <= {
        "darkroom:image_pace", "darkroom:tiers", "darkroom:waiting:normal", "darkroom:census", "darkroom:totals",
        "darkroom:job_sequence", "darkroom:claimers", *queue.connection.scan_iter("darkroom:usage:*"),
    }  # fmt: skip


def test_files_that_a_late_worker_wrote_are_removed_with_the_tombstone(
    queue: JobQueue, storage: Storage, retention: Retention, make_claims: MakeClaims
) -> None:
    id = complete(queue, storage, make_claims)
    let_expire(queue, id)
    sweep_all(retention)
    storage.write(f"images/{id}/1/0.png", b"late")

    queue.connection.zadd("darkroom:expiry", {id: 1})
    sweep_all(retention)

    assert storage.find("images/") == []


def test_concurrent_sweepers_remove_each_job_once(
    settings: SharedSettings, queue: JobQueue, storage: Storage, make_claims: MakeClaims
) -> None:
    ids = [complete(queue, storage, make_claims) for _ in range(150)]
    let_expire(queue, *ids)
    removed: list[int] = []

    def sweep() -> None:
        retention = Retention(queue.connection, storage, gone_seconds=60)
        while count := retention.sweep():
            removed.append(count)

    threads = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(removed) == len(ids)
    assert storage.find("images/") == []
    assert queue.connection.zcard("darkroom:jobs:local") == 0


def test_another_sweeper_finishes_the_work_of_a_killed_one(
    settings: SharedSettings, queue: JobQueue, storage: Storage, retention: Retention, make_claims: MakeClaims
) -> None:
    ids = [complete(queue, storage, make_claims) for _ in range(10)]
    let_expire(queue, *ids)
    command = [sys.executable, "-c", SWEEP_AND_DIE, settings.redis_url, str(settings.data)]

    died = subprocess.run(command, check=False, timeout=60)

    assert died.returncode == -signal.SIGKILL
    assert queue.connection.zcard("darkroom:jobs:local") == 6
    deadline = time.monotonic() + 60
    while queue.connection.zcard("darkroom:jobs:local"):
        assert time.monotonic() < deadline
        retention.sweep()
    assert storage.find("images/") == []
    for id in ids:
        with pytest.raises(Gone):
            queue.fetch(id)


def test_an_input_is_removed_after_its_time(queue: JobQueue, storage: Storage, retention: Retention) -> None:
    key = retention.retain(SHA, 60)
    storage.write(key, b"an image")
    sweep_all(retention)
    assert storage.exists(key)

    end_retention(queue)
    sweep_all(retention)

    assert not storage.exists(key)
    assert retention.retain_existing(SHA, 60) is None
    assert keys_of(queue) == set()


def test_a_shorter_retention_does_not_shorten_a_longer_one(queue: JobQueue, retention: Retention) -> None:
    key = retention.retain(SHA, 1000)

    assert retention.retain(SHA, 1) == key
    assert retention.retain_existing(SHA, 1) == key
    assert (queue.connection.zscore("darkroom:inputs", key) or 0) > queue.now() + 900


def test_inputs_of_a_request_whose_process_died_are_swept(
    queue: JobQueue, storage: Storage, retention: Retention
) -> None:
    storage.write(retention.retain(SHA, 60), b"written but never submitted")
    retention.retain("cd" * 32, 60)  # and an input that was never written

    end_retention(queue)
    sweep_all(retention)

    assert storage.find("inputs/") == []
    assert keys_of(queue) == set()


def test_an_input_is_kept_as_long_as_any_job_that_uses_it(
    queue: JobQueue, storage: Storage, retention: Retention, make_claims: MakeClaims
) -> None:
    key = retention.retain(SHA, 60)
    storage.write(key, b"an image")
    first, second = (
        complete(queue, storage, make_claims, image=key),
        queue.submit(parameters(image=key, mask_image=key)).id,
    )
    end_retention(queue)
    sweep_all(retention)
    assert storage.exists(key)

    let_expire(queue, first)
    sweep_all(retention)
    assert storage.exists(key)
    claim = take(make_claims())
    end(storage, make_claims, claim)
    let_expire(queue, second)
    sweep_all(retention)

    assert storage.find("inputs/") == []
    assert queue.connection.exists("darkroom:holders", "darkroom:inputs", "darkroom:rubbish") == 0


def test_an_upload_outlives_a_job_that_uses_it(
    queue: JobQueue, storage: Storage, retention: Retention, make_claims: MakeClaims
) -> None:
    key = retention.retain(SHA, 5000)
    storage.write(key, b"an image")
    id = complete(queue, storage, make_claims, image=key)
    let_expire(queue, id)

    sweep_all(retention)

    assert retention.retain_existing(SHA, 60) == key
    assert storage.exists(key)


def test_the_input_of_a_deleted_job_is_removed(
    queue: JobQueue, storage: Storage, retention: Retention, make_claims: MakeClaims
) -> None:
    key = retention.retain(SHA, 60)
    storage.write(key, b"an image")
    id = complete(queue, storage, make_claims, image=key)
    end_retention(queue)
    sweep_all(retention)

    queue.delete(id)
    sweep_all(retention)

    assert storage.find("inputs/") == []


def test_a_job_whose_input_was_swept_is_not_accepted(
    queue: JobQueue, storage: Storage, retention: Retention
) -> None:
    key = retention.retain(SHA, 60)
    end_retention(queue)
    sweep_all(retention)
    before = keys_of(queue)

    with pytest.raises(Unavailable, match="send the request again"):
        queue.submit(parameters(image=key))

    assert keys_of(queue) == before


def test_the_same_content_gets_a_new_key_so_a_late_sweeper_removes_no_needed_file(
    queue: JobQueue, storage: Storage, retention: Retention
) -> None:
    old = retention.retain(SHA, 60)
    storage.write(old, b"an image")
    end_retention(queue)
    Scripts(queue.connection).run("due_inputs", limit=10, lease_seconds=60)  # by a sweeper that is now suspended

    new = retention.retain(SHA, 60)
    storage.write(new, b"an image")
    id = queue.submit(parameters(image=new)).id
    storage.delete(old)  # the sweeper continues

    image = queue.fetch(id).parameters.image
    assert image is not None
    assert storage.exists(image)


def test_a_folder_that_cannot_be_removed_holds_up_no_other_job_and_no_input(
    settings: SharedSettings, queue: JobQueue, storage: Storage, retention: Retention, make_claims: MakeClaims
) -> None:
    ids = sorted(complete(queue, storage, make_claims) for _ in range(3))
    key = retention.retain(SHA, 60)
    storage.write(key, b"an image")
    stuck = settings.data / "storage" / "images" / ids[0]
    storage.clear(f"images/{ids[0]}/")
    stuck.write_text("a file, which cannot be removed as a folder is")
    let_expire(queue, *ids)
    end_retention(queue)

    sweep_all(retention)

    assert [path.name for path in stuck.parent.iterdir()] == [ids[0]]
    assert not storage.exists(key)
    for id in ids[1:]:
        with pytest.raises(Gone):
            queue.fetch(id)

    stuck.unlink()
    queue.connection.zadd("darkroom:expiry", {ids[0]: 1})
    sweep_all(retention)
    assert queue.connection.zcard("darkroom:jobs:local") == 0


def test_files_of_expired_jobs_are_removed_while_redis_refuses_to_write(
    tmp_path: Path,
) -> None:
    """Its disk is full, perhaps with these very files."""
    with redis_on_a_small_disk(tmp_path) as (url, server):
        queue, storage = JobQueue(SharedSettings(redis_url=url)), LocalStorage(tmp_path / "storage")
        worker = ScriptedWorker(queue, storage)
        expired, alive = (queue.submit(parameters()).id for _ in range(2))
        for _ in range(2):
            worker.complete(worker.claim())
        let_expire(queue, expired)
        fill(server, url)

        Retention(queue.connection, storage, gone_seconds=60).sweep()

        assert {key.split("/")[1] for key in storage.find("images/")} == {alive}
        queue.close()


def test_a_training_holds_its_newest_checkpoint_and_who_goes_on_with_it_holds_it_longer(
    queue: JobQueue, storage: Storage, retention: Retention, make_claims: MakeClaims
) -> None:
    claims, claim = make_claims(), take(make_claims(), submitted(queue))

    def write(number: int, step: int) -> str:
        key = retention.retain(f"{number:064x}", 3600, "safetensors")
        storage.write(key, b"a checkpoint")
        assert claims.keep_checkpoint(claim, CheckpointRecord(key=key, progress=Progress(step=step, steps=9)))
        return key

    older, newer = write(1, step=3), write(2, step=6)
    sweep_all(retention)
    assert storage.find("inputs/") == [newer]
    assert write(2, step=6) == newer  # the same content again
    claims.release(claim)
    waiting = queue.fetch(claim.job.id)
    assert (waiting.progress.step, waiting.progress.steps) == (6, 9)
    assert not claims.keep_checkpoint(claim, CheckpointRecord(key=newer, progress=Progress()))  # its lease is lost

    queue.cancel(claim.job.id)
    resumed = ResumedTraining(id=claim.job.id, checkpoint=newer, step=6)
    later = queue.submit(training().model_copy(update={"resumed": resumed}), priority=Priority.TRAINING)
    let_expire(queue, claim.job.id)
    sweep_all(retention)
    assert storage.find("inputs/") == [newer]
    queue.cancel(later.id)
    let_expire(queue, later.id)
    sweep_all(retention)
    assert storage.find("inputs/") == []
    assert older != newer


def submitted(queue: JobQueue) -> ClaimCriteria:
    """Submit a training; returns how a worker asks for it."""
    queue.submit(training(), priority=Priority.TRAINING)
    return ClaimCriteria(room={"training": 1})
