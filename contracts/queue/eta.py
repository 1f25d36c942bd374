"""When a job will run: its position in the queue, and times estimated from the measured seconds of a step.

Workers record the seconds of a step for each kind of job (`STEP_SECONDS`). Knows no model and no device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from redis import Redis

from contracts.queue.records import JobRecord, JobState, Position, pace_key
from contracts.queue.workers import read_workers
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
                "position", id=record.id, queue=record.queue, pace=pace_key(record.parameters)
            )
        return position_of(record, found)

    def run_seconds(self, parameters: JobParameters) -> float | None:
        """Estimate how long such a job denoises; None before the first was measured."""
        with redis_errors_are_unavailable():
            step_seconds = self._connection.hget(keys.STEP_SECONDS, pace_key(parameters))
        return None if step_seconds is None else parameters.num_inference_steps * float(str(step_seconds))

    def seconds_to_next_claim(self, record: JobRecord) -> int:
        """Estimate the seconds until a worker claims its next job, as if running jobs were like this one."""
        with redis_errors_are_unavailable():
            workers = len(read_workers(self._connection))
        run_seconds = self.run_seconds(record.parameters)
        if not workers or run_seconds is None:
            return _UNKNOWN_RETRY_SECONDS
        return max(1, math.ceil(run_seconds / workers))

    def seconds_to_first_end(self, record: JobRecord, jobs: Sequence[JobRecord]) -> int:
        """Estimate the seconds until the first of the running jobs ends; if none runs, until the next claim."""
        etas = [job.progress.eta_seconds for job in jobs if job.state is JobState.RUNNING]
        known = [eta for eta in etas if eta is not None]
        return max(1, math.ceil(min(known))) if known else self.seconds_to_next_claim(record)


def position_of(record: JobRecord, found: tuple[int, str, int] | None) -> Position | None:
    """Read what `position_after` of the scripts returns: jobs ahead, seconds of a step, workers."""
    if found is None:
        return None
    ahead, step_seconds, workers = found
    if not step_seconds:
        return Position(ahead)
    run_seconds = record.parameters.num_inference_steps * float(step_seconds)
    return Position(ahead, (ahead / max(1, workers) + 1) * run_seconds)
