"""The worker's side of the queue, for tests that need no worker."""

from __future__ import annotations

import json
from collections.abc import Callable

from contracts.jobs.records import Progress
from contracts.leases.claim import Claim, Report
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.redis import keys

#: `make_claims("second", lease_seconds=1)`: the claims of a worker of that name, with these queue settings.
MakeClaims = Callable[..., Claims]
ANY_JOB = ClaimCriteria()


def take(claims: Claims, criteria: ClaimCriteria = ANY_JOB) -> Claim:
    """Claim the next job, which must be waiting."""
    claim = claims.claim(criteria)
    assert claim is not None
    return claim


def take_all(claims: Claims, criteria: ClaimCriteria = ANY_JOB) -> list[Claim]:
    """Claim jobs until there is none."""
    taken = []
    while (claim := claims.claim(criteria)) is not None:
        taken.append(claim)
    return taken


def become_idle(queue: JobQueue, claims: Claims, criteria: ClaimCriteria = ANY_JOB) -> None:
    """Claim where no job is for this worker, which counts as idle for ten minutes: longer than tests take."""
    assert claims.claim(criteria) is None
    shift_idle_times(queue, 600)


def shift_idle_times(queue: JobQueue, seconds: float) -> None:
    """Change until when workers that found no job count as idle."""
    for worker, text in queue.connection.hgetall(keys.CLAIMERS).items():
        entry = json.loads(text)
        entry["expires_at"] += seconds
        queue.connection.hset(keys.CLAIMERS, worker, json.dumps(entry))


def let_leases_expire(queue: JobQueue) -> None:
    """Let the leases of all running jobs end now, as after a long silence of their workers."""
    for job_id in queue.connection.zrange(keys.LEASES, 0, -1):
        queue.connection.zadd(keys.LEASES, {str(job_id): 1.0}, xx=True)


def reports(*claims: Claim, progress: Progress | None = None, used_seconds: float = 0.0) -> list[Report]:
    """The same report for each of these jobs."""
    return [Report(claim, progress, used_seconds) for claim in claims]
