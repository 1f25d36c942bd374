"""The clients' side of the queue: submit, fetch, cancel, list. Hides RQ; knows neither HTTP nor workers.

RQ keeps a job hash, a queue list and registries for each job, so that its tools tell the truth; our record
beside it holds what clients ask for. Both are written in one transaction.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from redis import exceptions as redis_errors
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from contracts import scripts
from contracts.connections import connect
from contracts.errors import Conflict, NotFound, Unavailable
from contracts.events import stream_key
from contracts.parameters import JobParameters
from contracts.records import JobRecord, JobState, pace_key
from contracts.settings import SharedSettings
from contracts.tasks import Priority
from contracts.workers import read_workers

#: The only function that a worker runs from the queue; RQ stores its name, nothing is imported here.
RUN_FUNCTION = "worker.jobs.run"

#: A client is told that Redis is away after twice this, at the latest.
_TIMEOUT_SECONDS = 2.0


@contextmanager
def redis_errors_are_unavailable() -> Iterator[None]:
    """Turns a lost or refusing Redis into the domain's Unavailable."""
    try:
        yield
    except (redis_errors.ConnectionError, redis_errors.TimeoutError) as error:
        raise Unavailable("the queue (Redis) does not answer") from error
    except redis_errors.RedisError as error:
        raise Unavailable(f"the queue (Redis) refused: {error}") from error


class JobQueue:
    """Jobs in Redis, as clients see them."""

    def __init__(self, settings: SharedSettings) -> None:
        self.connection = connect(settings.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=1)
        self._rq_connection = connect(
            settings.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=1, decode=False
        )
        self._ttl_seconds = settings.result_ttl_seconds
        self._cancel = scripts.load(self.connection, "cancel")

    def submit(
        self,
        parameters: JobParameters,
        *,
        owner: str = "local",
        priority: Priority = Priority.NORMAL,
        deadline_seconds: int | None = None,
        response_format: str = "url",
        metadata: dict[str, str] | None = None,
    ) -> JobRecord:
        """Accept a job. When this returns, Redis has it, whole.

        Raises:
            Unavailable: Redis does not answer; the job may or may not be there.
        """
        with redis_errors_are_unavailable():
            created_at = self.now()
            record = JobRecord(
                id=secrets.token_hex(16),
                state=JobState.QUEUED,
                parameters=parameters,
                owner=owner,
                priority=priority,
                response_format=response_format,
                metadata=metadata or {},
                created_at=created_at,
                deadline_at=None if deadline_seconds is None else created_at + deadline_seconds,
            )
            self._write(record)
        return record

    def fetch(self, id: str) -> JobRecord:
        """The job's record.

        Raises:
            NotFound: unknown, or expired.
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            fields = cast("dict[str, str]", self.connection.hgetall(f"darkroom:job:{id}"))
        if "parameters" not in fields:
            raise NotFound("job", id)
        return JobRecord.from_hash(fields)

    def cancel(self, id: str) -> JobRecord:
        """Cancel a job: at once where it waits, within one step where it runs. Idempotent.

        Raises:
            NotFound: unknown, or expired.
            Conflict: it is completed or failed.
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            found = self._cancel(args=[json.dumps({"id": id, "ttl_seconds": self._ttl_seconds})])
        if found is None:
            raise NotFound("job", id)
        if found in (JobState.COMPLETED, JobState.FAILED):
            raise Conflict(f"job {id} is already {found}")
        return self.fetch(id)

    def position(self, record: JobRecord) -> int | None:
        """Jobs ahead of this one in its own queue; None when it does not wait."""
        with redis_errors_are_unavailable():
            return cast("int | None", self.connection.lpos(f"rq:queue:{record.queue}", record.id))

    def estimate_seconds(self, record: JobRecord, ahead: int) -> float | None:
        """Seconds until a waiting job's end, from measured step times; None before the first measurement."""
        with redis_errors_are_unavailable():
            step_seconds = self.connection.hget("darkroom:pace", pace_key(record.parameters))
            if step_seconds is None:
                return None
            workers = max(1, len(read_workers(self.connection)))
        return (ahead / workers + 1) * record.parameters.num_inference_steps * float(str(step_seconds))

    def ping(self) -> None:
        """Raises Unavailable when Redis does not answer."""
        with redis_errors_are_unavailable():
            self.connection.ping()

    def now(self) -> float:
        """Seconds since 1970 on Redis' clock."""
        seconds, micros = self.connection.time()
        return seconds + micros / 1e6

    def close(self) -> None:
        """Give the connections back."""
        self.connection.close()
        self._rq_connection.close()

    def _write(self, record: JobRecord) -> None:
        queue = Queue(record.queue, connection=self._rq_connection, serializer=JSONSerializer)
        job = Job.create(
            RUN_FUNCTION,
            args=[record.id],
            id=record.id,
            timeout=-1,
            connection=self._rq_connection,
            serializer=JSONSerializer,
            description=f"{record.parameters.task} on {record.parameters.model}",
        )
        with self._rq_connection.pipeline(transaction=True) as pipe:
            queue.enqueue_job(job, pipeline=pipe)  # first: RQ opens the transaction itself
            pipe.hset(f"darkroom:job:{record.id}", mapping=record.to_hash())  # type: ignore[arg-type]
            pipe.xadd(stream_key(record.id), {"event": "queued", "data": json.dumps({"at": time.time()})})
            pipe.sadd(f"darkroom:waiting:{record.priority}", record.queue)
            pipe.zadd(f"darkroom:jobs:{record.owner}", {record.id: record.created_at})
            if record.deadline_at is not None:
                pipe.zadd("darkroom:deadlines", {record.id: record.deadline_at})
            pipe.execute()
