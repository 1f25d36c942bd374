"""Reproduced defects by which a stock RQ worker loses or duplicates jobs; Darkroom has none of them.

The letters name the defects. The state that a killed process leaves behind comes from a process that is really
killed, at the worst moment.
"""

from __future__ import annotations

import threading
import time

from redis import Redis
from rq import Queue
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from contracts.jobs.records import JobState
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.requests.schema import CHOSEN_PRIORITIES
from contracts.settings import SharedSettings
from tests.support.claims import MakeClaims, let_leases_expire, take, take_all
from tests.support.forked_text import running
from tests.support.parameters import parameters

LEASE_SECONDS = 0.2

#: Claims jobs, prints their number, and hangs until it is killed: nothing after the claim has happened.
CLAIM_AND_HANG = f"""
import sys, time
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria
from contracts.redis.connection import connect
from contracts.settings import QueueSettings
connection = connect(sys.argv[1], timeout_seconds=5, retries=0)
claims = Claims(connection, QueueSettings(lease_seconds={LEASE_SECONDS}), "x", 60)
print(sum(claims.claim(ClaimCriteria()) is not None for _ in range(2)), flush=True)
time.sleep(60)
"""


def kill_after_claim(settings: SharedSettings) -> int:
    """Kill a worker after its claim; returns how many jobs it had claimed."""
    with running(CLAIM_AND_HANG, settings.redis_url) as (process, shown):
        claimed = int(shown.readline())
        process.kill()
    return claimed


def rq_queue(connection: Redis, name: str) -> Queue:
    return Queue(name, connection=connection, serializer=JSONSerializer)


def test_defect_a_a_worker_of_several_queues_that_is_killed_after_its_claim_loses_no_job(
    settings: SharedSettings, queue: JobQueue, make_claims: MakeClaims
) -> None:
    ids = [queue.submit(parameters(), priority=tier).id for tier in CHOSEN_PRIORITIES for _ in range(2)]
    assert kill_after_claim(settings) == 2
    let_leases_expire(queue)
    claims = make_claims()
    claims.reap()
    claimed = [claim.job.id for claim in take_all(claims)]
    assert sorted(claimed) == sorted(ids)


def test_defect_a2_a_lost_job_is_requeued_after_one_lease(
    settings: SharedSettings, queue: JobQueue, make_claims: MakeClaims
) -> None:
    job = queue.submit(parameters())
    kill_after_claim(settings)
    time.sleep(2 * LEASE_SECONDS)
    assert make_claims().reap() == (1, [])
    assert queue.fetch(job.id).state is JobState.QUEUED


def test_defect_b_a_completed_job_neither_becomes_failed_nor_runs_again(
    queue: JobQueue, rq_connection: Redis, make_claims: MakeClaims
) -> None:
    job = queue.submit(parameters())
    claims = make_claims(lease_seconds=LEASE_SECONDS)
    claim = take(claims)
    claims.finish(claim, JobState.COMPLETED, images=[])
    # As if the worker had been killed before its execution was removed.
    queue.connection.zadd("darkroom:leases", {job.id: 1.0})
    queue.connection.zadd(f"rq:wip:{job.queue}", {f"{job.id}:{claim.execution}": 1.0})
    StartedJobRegistry(queue=rq_queue(rq_connection, job.queue)).cleanup()
    assert claims.reap() == (0, [])
    assert claims.claim(ClaimCriteria()) is None
    assert queue.fetch(job.id).state is JobState.COMPLETED


def test_defect_c_concurrent_cleanups_by_rq_leave_our_leases_unchanged(
    queue: JobQueue, rq_connection: Redis, make_claims: MakeClaims
) -> None:
    jobs = [queue.submit(parameters(batchable=False)) for _ in range(50)]
    claims = make_claims(lease_seconds=LEASE_SECONDS)
    running = take_all(claims)
    time.sleep(2 * LEASE_SECONDS)

    def clean() -> None:
        registry = StartedJobRegistry(queue=rq_queue(rq_connection, jobs[0].queue))
        registry.cleanup()
        assert registry.count == len(jobs)

    threads = [threading.Thread(target=clean) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert queue.connection.llen(f"rq:queue:{jobs[0].queue}") == 0
    assert all(claims.finish(claim, JobState.COMPLETED, images=[]) for claim in running)
    finished = FinishedJobRegistry(queue=rq_queue(rq_connection, jobs[0].queue))
    assert sorted(finished.get_job_ids()) == sorted(job.id for job in jobs)
    assert FailedJobRegistry(queue=rq_queue(rq_connection, jobs[0].queue)).count == 0


def test_defect_e_a_killed_worker_leaves_no_maintenance_lock(
    settings: SharedSettings, queue: JobQueue, make_claims: MakeClaims
) -> None:
    queue.submit(parameters())
    kill_after_claim(settings)
    let_leases_expire(queue)
    assert [make_claims(name).reap()[0] for name in ("second", "third")] == [1, 0]
    assert list(queue.connection.scan_iter("rq:clean_registries*")) == []
