"""One owner's running jobs, found by the leases of all running jobs. Knows no HTTP."""

from __future__ import annotations

from typing import cast

from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable


def running_jobs(queue: JobQueue, owner: str) -> list[JobRecord]:
    """Return an owner's running jobs, the one that was started last first.

    There are as many leases as workers run jobs, so this costs the same however many jobs have ended.

    Raises:
        Unavailable: Redis does not answer.
    """
    with redis_errors_are_unavailable():
        ids = cast("list[str]", queue.connection.zrange(keys.LEASES, 0, -1))
        with queue.connection.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hget(keys.JOB + id, "owner")
            owners = pipe.execute()
    own = [id for id, found in zip(ids, owners, strict=True) if found == owner]
    running = [job for job in queue.fetch_all(own) if job.state is JobState.RUNNING]
    return sorted(running, key=lambda job: job.started_at or 0.0, reverse=True)
