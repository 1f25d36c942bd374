"""When a job will run: its position in the queue, and times estimated from the measured pace of earlier jobs.

Workers record the seconds per image and step of each kind of job (`IMAGE_PACE`). What is served before a job,
running jobs and those of other models, owners and tiers included, is added up in `forecast.lua`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import cast

from redis import Redis

from contracts.jobs.records import JobRecord, JobState, Position, work_of
from contracts.processes.workers import read_workers
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable
from contracts.requests.parameters import JobParameters

#: Retry-After of a full queue whose speed is not known yet.
_UNKNOWN_RETRY_SECONDS = 10


class EtaEstimator:
    """Positions and times of jobs, estimated from measured step times.

    Every method raises Unavailable when Redis does not answer.
    """

    def __init__(self, connection: Redis, scripts: Scripts) -> None:
        self._connection = connection
        self._scripts = scripts

    def position(self, record: JobRecord) -> Position | None:
        """Return a job's position now; None when it is not waiting."""
        with redis_errors_are_unavailable():
            found = self._scripts.run(
                "position",
                id=record.id,
                queue=record.queue,
                tier=record.priority,
                owner=record.owner,
                work=work_of(record.parameters),
                created_at=record.created_at,
            )
        return position_of(found)

    def run_seconds(self, parameters: JobParameters) -> float | None:
        """Estimate how long such a job denoises, alone; None before the first of its model was measured."""
        work = work_of(parameters)
        with redis_errors_are_unavailable():
            paces = self._connection.hmget(keys.IMAGE_PACE, [work["pace"], work["model"]])
        pace, totals = cast("list[str | None]", paces)
        if pace is not None:
            return float(work["image_steps"] * float(pace))
        seconds, megapixel_steps = (0.0, 0.0) if totals is None else json.loads(totals)
        return float(work["megapixel_steps"] * seconds / megapixel_steps) if megapixel_steps else None

    def seconds_to_next_claim(self, record: JobRecord) -> int:
        """Estimate the seconds until a worker claims its next job: until the first running one ends.

        While none runs, which is seldom for long, a job like this one stands for it.
        """
        with redis_errors_are_unavailable():
            first_end = self._scripts.run("first_end")
            workers = len(read_workers(self._connection))
        if first_end is not None:
            return max(1, math.ceil(float(first_end)))
        run_seconds = self.run_seconds(record.parameters)
        if not workers or run_seconds is None:
            return _UNKNOWN_RETRY_SECONDS
        return max(1, math.ceil(run_seconds / workers))

    def seconds_to_owners_next_claim(self, record: JobRecord) -> int:
        """Estimate the seconds until a worker claims a job of this owner, whose turn comes after all others'."""
        with redis_errors_are_unavailable():
            owners = self._connection.hget(keys.OWNER_LOAD, f"owners {record.priority}")
        return self.seconds_to_next_claim(record) * max(1, int(str(owners or 1)))

    def seconds_to_first_end(self, record: JobRecord, jobs: Sequence[JobRecord]) -> int:
        """Estimate the seconds until the first of the running jobs ends; if none runs, until the next claim."""
        etas = [job.progress.eta_seconds for job in jobs if job.state is JobState.RUNNING]
        known = [eta for eta in etas if eta is not None]
        return max(1, math.ceil(min(known))) if known else self.seconds_to_next_claim(record)


def position_of(found: tuple[int, str, str] | None) -> Position | None:
    """Read what `position_after` of the scripts returns: jobs ahead, its own seconds, seconds until it begins."""
    if found is None:
        return None
    ahead, run_seconds, wait_seconds = found
    return Position(ahead, float(wait_seconds) + float(run_seconds) if run_seconds else None)
