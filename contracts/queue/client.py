"""The clients' side of the queue: submit, fetch, cancel, delete. Hides RQ; knows neither HTTP nor workers.

Each job has an RQ job with its registries, so that RQ's tools show the truth, and our own record of what clients
ask for. Scripts write both in one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Unpack

from contracts.errors import (
    Conflict,
    DarkroomError,
    Gone,
    NotFound,
    QueueFull,
    QuotaExceeded,
    RecordQuotaExceeded,
    TooManyJobs,
    Unavailable,
)
from contracts.jobs.events import Event, read_events
from contracts.jobs.record_reader import UnreadableJob, read_record
from contracts.jobs.records import JobRecord, JobState
from contracts.queue.eta import SHORT_QUEUE, EtaEstimator
from contracts.queue.idempotency import IdempotencyHold
from contracts.queue.limits import SubmitLimits
from contracts.queue.new_job import JobOptions, new_record, rq_fields
from contracts.redis import keys
from contracts.redis.connection import Scripts, connect, redis_errors_are_unavailable, unix_seconds
from contracts.redis.replication import ReplicaBarrier
from contracts.requests.any_parameters import AnyParameters
from contracts.settings import SharedSettings

#: Timeout of one command, which is sent at most twice.
_TIMEOUT_SECONDS = 2.0
#: How long a deleted job leaves a tombstone; after it, the sweep removes files that were written meanwhile.
_DELETED_SECONDS = 60


_NO_LIMITS = SubmitLimits()


class JobQueue:
    """The queue as clients see it.

    Attributes:
        eta: estimates of positions and times.
        replicas: of Redis, that must have each job.
    """

    def __init__(self, settings: SharedSettings) -> None:
        self.connection = connect(settings.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=1)
        self._ttl_seconds = settings.result_ttl_seconds
        self._scripts = Scripts(self.connection)
        self.replicas = ReplicaBarrier(settings)
        self.eta = EtaEstimator(self.connection, self._scripts)

    def submit(
        self,
        parameters: AnyParameters,
        *,
        deadline_seconds: int | None = None,
        idempotency: IdempotencyHold | None = None,
        limits: SubmitLimits = _NO_LIMITS,
        **options: Unpack[JobOptions],
    ) -> JobRecord:
        """Accept a job. When this returns, Redis holds all of it, and its idempotency key is bound.

        Raises:
            Conflict: another call holds the idempotency key by now.
            QueueFull, TooManyJobs, QuotaExceeded: one of `limits` has been reached.
            Unavailable: Redis does not answer, and the job may or may not exist; or an input has been removed; or
                replicas that must have the job are missing.
        """
        self.replicas.require()
        record = new_record(parameters, options)
        with redis_errors_are_unavailable():
            verdict, *found = self._run_submit(record, deadline_seconds, idempotency, limits)
        if verdict == "taken" and idempotency is not None:
            raise idempotency.lost()
        if verdict != "accepted":
            raise self._refusal(verdict, found, record, limits)
        created_at = float(found[0])
        if len(found) > 1:
            self.eta.note_new(record.id, *found[1:])
        deadline_at = None if deadline_seconds is None else created_at + deadline_seconds
        return record.model_copy(update={"created_at": created_at, "deadline_at": deadline_at})

    def _run_submit(
        self,
        record: JobRecord,
        deadline_seconds: int | None,
        idempotency: IdempotencyHold | None,
        limits: SubmitLimits,
    ) -> Any:
        """Run the script that accepts a job; returns its verdict, and what belongs to it."""
        arguments = {
            "id": record.id,
            "inputs": record.parameters.inputs,
            "fields": record.to_hash(),
            "rq": rq_fields(record),
            "result_bytes": record.parameters.max_result_bytes,
            "deadline_seconds": deadline_seconds,
            "short_queue": SHORT_QUEUE,
            "idempotency": None if idempotency is None else asdict(idempotency),
            **limits.arguments(),
        }
        return self._scripts.run(
            "submit", **{name: value for name, value in arguments.items() if value is not None}
        )

    def confirm(self, id: str) -> None:
        """Wait until `DARKROOM_REDIS_WAIT_REPLICAS` replicas have a job, so that no failover can lose it.

        Raises:
            Unavailable: they have it not in time. The job stays queued, and its idempotency key names it.
        """
        if not self.replicas.confirm(keys.JOB + id):
            raise Unavailable(
                "too few replicas of the queue (Redis) have confirmed the job in time, and it may still run; "
                "send the request again with the same Idempotency-Key, under which it is accepted only once"
            )

    def _refusal(self, verdict: str, found: list[Any], record: JobRecord, limits: SubmitLimits) -> DarkroomError:
        """Why the script refused a job."""
        if verdict == "full":
            return QueueFull(
                f"{limits.max_waiting} jobs are waiting, the maximum", self.eta.seconds_to_next_claim()
            )
        if verdict == "full_for_owner":
            waiting = f"{limits.max_waiting_per_owner} of your jobs are waiting, the maximum for one owner"
            return QueueFull(waiting, self.eta.seconds_to_next_claim(record.owner))
        if verdict == "too_much":
            return QuotaExceeded(int(found[0]), limits.max_bytes)
        if verdict == "too_large":
            return RecordQuotaExceeded(int(found[0]), limits.max_record_bytes)
        if verdict == "too_many":
            return TooManyJobs(len(found), self.eta.seconds_to_first_end(found))
        return Unavailable("an input was removed while the job was being accepted; send the request again")

    def fetch(self, id: str) -> JobRecord:
        """Read a job's record.

        Raises:
            NotFound: the job is unknown or deleted.
            Gone: it has expired recently.
            Unavailable: Redis does not answer.
        """
        (fields,), now = self._read([id])
        if not fields or fields.get("gone") == "deleted":
            raise NotFound("job", id)
        if _is_gone(fields, now):
            raise Gone("job", id, fields.get("owner", ""))
        return self._end_unreadable(read_record(fields))

    def fetch_all(self, ids: Sequence[str]) -> list[JobRecord]:
        """Read the records of those of the jobs that exist, in order."""
        found, now = self._read(ids)
        records = [read_record(fields) for fields in found if fields and not _is_gone(fields, now)]
        return [self._end_unreadable(record) for record in records]

    def cancel(self, id: str) -> JobRecord:
        """Cancel a job: a waiting one at once, a running one within one denoising step. Idempotent.

        Raises:
            NotFound: the job is unknown or expired.
            Conflict: it has completed or failed.
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            found = self._scripts.run("cancel", id=id, ttl_seconds=self._ttl_seconds)
        if found is None:
            raise NotFound("job", id)
        if found in (JobState.COMPLETED, JobState.FAILED):
            raise Conflict(f"job {id} is already {found}")
        return self.fetch(id)

    def events(self, id: str, after: str, limit: int) -> list[Event]:
        """Read a job's events after the one with id `after` ("0": from the first), oldest first."""
        with redis_errors_are_unavailable():
            return read_events(self.connection, id, after, limit)

    def delete(self, id: str) -> None:
        """Delete an ended job's record; the caller removes its files, and a later sweep what a slow worker adds.

        Raises:
            NotFound: the job is unknown or already deleted.
            Conflict: it is waiting or running.
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            found = self._scripts.run("expire", id=id, deleted=True, tombstone_seconds=_DELETED_SECONDS)
        if found is None or found == "gone":
            raise NotFound("job", id)
        if not JobState(found).is_final:
            raise Conflict(f"job {id} is {found}; cancel it first")

    def ping(self) -> None:
        """Check the connection; raises Unavailable when Redis does not answer."""
        with redis_errors_are_unavailable():
            self.connection.ping()

    def now(self) -> float:
        """Unix seconds on Redis' clock."""
        return unix_seconds(self.connection)

    def close(self) -> None:
        """Close the connections."""
        self.connection.close()
        self.replicas.close()

    def _end_unreadable(self, record: JobRecord) -> JobRecord:
        """The record; one that cannot be read fails now, unless its job runs."""
        if not isinstance(record, UnreadableJob) or record.error is None or record.state is JobState.RUNNING:
            return record
        with redis_errors_are_unavailable():
            error = record.error.model_dump_json()
            self._scripts.run("fail_unreadable", id=record.id, error=error, ttl_seconds=self._ttl_seconds)
        return read_record(self._read([record.id])[0][0] | {"id": record.id})

    def _read(self, ids: Sequence[str]) -> tuple[list[dict[str, str]], float]:
        """Read the jobs' hashes, and the time on Redis' clock."""
        with redis_errors_are_unavailable(), self.connection.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hgetall(keys.JOB + id)
            pipe.time()
            *found, (seconds, micros) = pipe.execute()
        records = [{"id": id, **fields} if fields else {} for id, fields in zip(ids, found, strict=True)]
        return records, seconds + micros / 1e6


def _is_gone(fields: Mapping[str, str], now: float) -> bool:
    """Whether a job has expired, swept or not."""
    try:
        return "gone" in fields or float(fields.get("expires_at", "inf")) <= now
    except ValueError:
        return False
