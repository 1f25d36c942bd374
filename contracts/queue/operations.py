"""What operators do with the jobs of all owners: run a failed one again, change a priority, purge, pause, drain.

Each change is one script. Who may call this is the caller's concern; so is the audit log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from contracts.errors import Conflict, NotFound
from contracts.jobs.record_reader import UnreadableJob
from contracts.jobs.records import JobRecord, JobState, queue_name
from contracts.queue.client import JobQueue
from contracts.queue.waiting_queues import QueueFilter, find_queues
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable
from contracts.requests.schema import Priority

#: In place of a model: all of them.
ALL_MODELS = "*"
#: Maximum jobs that one script cancels, and that one call of `purge` does.
_PURGE_STEP, _PURGE_LIMIT = 200, 5000
#: How long a drained worker's name is remembered.
_DRAINED_SECONDS = 7 * 86_400


@dataclass(frozen=True)
class Purged:
    """The result of a purge.

    Attributes:
        cancelled: jobs.
        has_more: whether jobs are left, since a purge cancels a limited number of them.
    """

    cancelled: int
    has_more: bool


@dataclass(frozen=True)
class Hold:
    """A paused model, or a drained worker.

    Attributes:
        name: of the model, `*` for all; or id of the worker.
        since: Unix seconds on Redis' clock.
        by: id of the API key.
    """

    name: str
    since: float
    by: str


class Operations:
    """Changes to the queue of all owners. Every method raises Unavailable when Redis does not answer."""

    def __init__(self, queue: JobQueue, ttl_seconds: int) -> None:
        """`ttl_seconds`: how long jobs that are purged are shown as cancelled."""
        self._queue = queue
        self._ttl_seconds = ttl_seconds
        self._connection = queue.connection
        self._scripts = Scripts(queue.connection)

    def requeue(self, id: str) -> JobRecord:
        """Put a failed job back into its queue, with all its attempts and without a deadline.

        Raises:
            NotFound, Gone: the job is unknown, or has expired.
            Conflict: it has not failed, or its record cannot be read.
        """
        record = self._queue.fetch(id)
        if isinstance(record, UnreadableJob):
            raise Conflict(f"the record of job {id} cannot be read, so it cannot run")
        with redis_errors_are_unavailable():
            state = self._scripts.run("requeue_failed", id=id, result_bytes=record.parameters.max_result_bytes)
        if state is None:
            raise NotFound("job", id)
        if state != JobState.FAILED:
            raise Conflict(f"job {id} is {state}; only a failed job can be requeued")
        return self._queue.fetch(id)

    def release_flagged(self, id: str, number: int) -> JobRecord:
        """Give the owner of a job one of its flagged images, as it was generated. Idempotent.

        Raises:
            NotFound, Gone: the job is unknown, or has expired.
            Conflict: it has not ended, or was cancelled.
        """
        with redis_errors_are_unavailable():
            state = self._scripts.run("release_flagged", id=id, number=number)
        if state is not None and state not in (JobState.COMPLETED, JobState.FAILED):
            raise Conflict(f"job {id} is {state}; images of completed and failed jobs can be released")
        return self._queue.fetch(id)

    def change_priority(self, id: str, priority: Priority) -> JobRecord:
        """Move a waiting job behind its owner's other jobs of another priority.

        Raises:
            NotFound, Gone: the job is unknown, or has expired.
            Conflict: it does not wait.
        """
        record = self._queue.fetch(id)
        if record.priority is Priority.TRAINING:
            raise Conflict(f"job {id} is a training; trainings have no priority, and always come after images")
        queue = queue_name(priority, record.parameters.model, record.owner)
        with redis_errors_are_unavailable():
            state = self._scripts.run("change_priority", id=id, priority=priority.value, queue=queue)
        if state is None:
            raise NotFound("job", id)
        if state != JobState.QUEUED:
            raise Conflict(f"job {id} is {state}; a priority can be changed only while the job waits")
        return self._queue.fetch(id)

    def purge(self, filters: QueueFilter) -> Purged:
        """Cancel waiting jobs, up to 5000 of them."""
        cancelled = 0
        with redis_errors_are_unavailable():
            for name in find_queues(self._connection, filters):
                left = 1
                while left:
                    if cancelled >= _PURGE_LIMIT:
                        return Purged(cancelled, has_more=True)
                    done, left = self._scripts.run(
                        "purge", queue=name.name, limit=_PURGE_STEP, ttl_seconds=self._ttl_seconds
                    )
                    cancelled += done
        return Purged(cancelled, has_more=False)

    def pause(self, model: str, by: str) -> None:
        """Stop workers from beginning jobs of this model (`*`: any); running jobs go on, new ones are accepted."""
        self._hold(keys.PAUSED, model, by)

    def resume(self, model: str) -> bool:
        """End `pause` of the same name; False if it was not paused. A model and all are paused separately."""
        return self._release(keys.PAUSED, model)

    def drain(self, worker: str, by: str) -> None:
        """Stop a live worker from beginning jobs; its running jobs go on, and it idles until it is stopped.

        Raises:
            NotFound: no such worker is running.
        """
        with redis_errors_are_unavailable():
            is_live = self._connection.exists(keys.WORKER + worker)
        if not is_live:
            raise NotFound("worker", worker)
        self._hold(keys.DRAINED, worker, by, max_seconds=_DRAINED_SECONDS)

    def undrain(self, worker: str) -> bool:
        """End `drain`; False if the worker was not drained."""
        return self._release(keys.DRAINED, worker)

    def paused(self) -> list[Hold]:
        """The paused models, by name."""
        return self._holds(keys.PAUSED)

    def drained(self) -> list[Hold]:
        """The drained workers, by id, those included that are not running now."""
        return self._holds(keys.DRAINED)

    def _hold(self, key: str, name: str, by: str, **options: int) -> None:
        with redis_errors_are_unavailable():
            self._scripts.run("set_hold", key=key, name=name, row={"by": by}, **options)

    def _release(self, key: str, name: str) -> bool:
        with redis_errors_are_unavailable():
            return bool(self._scripts.run("set_hold", key=key, name=name))

    def _holds(self, key: str) -> list[Hold]:
        with redis_errors_are_unavailable():
            rows = cast("Mapping[str, str]", self._connection.hgetall(key))
        found = {name: json.loads(text) for name, text in rows.items()}
        return [Hold(name, float(row["since"]), str(row["by"])) for name, row in sorted(found.items())]
