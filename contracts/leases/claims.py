"""The workers' side of the queue: claim, extend, advance, finish, release, reap. Each is one atomic step.

A claim leases a job under an execution id, a fencing token: the scripts check it before every write, so a worker
that has lost the lease writes nothing. Knows nothing of pipelines.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from redis import Redis

from contracts.jobs.events import Preview
from contracts.jobs.failures import FailureCode
from contracts.jobs.receipt import Energy, Receipt
from contracts.jobs.record_reader import UnreadableJob, read_record
from contracts.jobs.records import CheckpointRecord, ImageRecord, JobError, JobRecord, JobState, Measured, to_json
from contracts.leases.claim import Claim, Report, Verdict
from contracts.leases.criteria import ROOM_FOR_ONE, ClaimCriteria, MustRunAlone, NextJobs, NotReady, Suspended
from contracts.leases.waiting_jobs import WaitingJobs
from contracts.redis import keys
from contracts.redis.connection import Scripts
from contracts.settings import QueueSettings

_log = logging.getLogger(__name__)

#: Jobs that a peek returns at most.
_PEEK_JOBS = 4
#: How long the others know what a worker had in flight when it last asked for a job: a few intervals between two
#: looks at an empty queue. If it has died, other workers leave jobs to it for no longer than that.
_CLAIMING_SECONDS = 3.0

#: Previews that a job's event stream keeps for clients that connect later.
_MAX_PREVIEW_BYTES = 256 * 1024


class Claims:
    """The leases of one worker."""

    def __init__(self, connection: Redis, settings: QueueSettings, worker: str, ttl_seconds: int) -> None:
        """`connection` decodes responses; `ttl_seconds` is how long a finished job is kept."""
        self.connection = connection
        self._settings = settings
        self._worker = worker
        self._ttl_seconds = ttl_seconds
        self._scripts = Scripts(connection)

    @property
    def lease_seconds(self) -> float:
        """How long a lease lasts unless it is extended."""
        return self._settings.lease_seconds

    @property
    def lower_tier_share(self) -> float:
        """The share of the seconds that a lower tier gets while a higher one always has jobs."""
        return self._settings.lower_tier_share

    def claim(self, criteria: ClaimCriteria) -> Claim | None:
        """Lease the next waiting job; None if there is none for this worker.

        While other workers have fewer jobs in flight, this one gets a job only where more wait than these should
        take. A job whose record cannot be read fails here.

        Raises:
            NotReady: the next job needs something that is not in `ready`.
            MustRunAlone: the next job must run alone, and jobs are in flight.
            Suspended: `rq suspend` asks all workers to take no jobs.
        """
        while True:
            execution = uuid.uuid4().hex
            answer = self._ask(
                criteria,
                execution=execution,
                lease_seconds=self._settings.lease_seconds,
                in_flight=criteria.in_flight,
                claiming_seconds=_CLAIMING_SECONDS,
            )
            if "suspended" in answer:
                raise Suspended
            if "unready" in answer:
                raise NotReady(answer["unready"])
            if "must_run_alone" in answer:
                raise MustRunAlone
            if "id" not in answer:
                return None
            claim = Claim(self._read(answer["id"]), execution, answer["alone"])
            if not isinstance(claim.job, UnreadableJob):
                return claim
            self._fail_unreadable(claim, claim.job)

    def _fail_unreadable(self, claim: Claim, job: UnreadableJob) -> None:
        error = job.error or JobError.of(FailureCode.UNREADABLE, "the job's record cannot be read")
        _log.error("job failed: %s", error.message, extra={"job_id": job.id})
        self.fail(claim, error, used_seconds=0.0)

    def peek(self, criteria: ClaimCriteria) -> NextJobs:
        """Find the next four jobs for this worker, whether it has room for them or not; leases none."""
        answer = self._ask(replace(criteria, room=ROOM_FOR_ONE), peek=_PEEK_JOBS)
        jobs = [self._read(id) for id in answer["ids"]]
        unready = dict.fromkeys(answer["unready"])
        return NextJobs([job for job in jobs if not isinstance(job, UnreadableJob)], list(unready))

    def extend(self, claims: Sequence[Claim]) -> set[str]:
        """Extend the leases; return the ids of jobs whose lease was lost."""
        executions = [claim.reference() for claim in claims]
        return set(
            self._scripts.run("extend", executions=executions, lease_seconds=self._settings.lease_seconds)
            if executions
            else ()
        )

    def advance(self, reports: Sequence[Report]) -> list[Verdict]:
        """Write how far running jobs are; return for each whether to continue. One round trip for all."""
        written = []
        for report in reports:
            entry: dict[str, Any] = {**report.claim.reference(), "used_seconds": report.used_seconds}
            if report.energy is not None:
                entry["energy"] = report.energy.model_dump(mode="json")
            if report.progress is not None:
                entry["progress"] = report.progress.model_dump()
            written.append(entry)
        return cast("list[Verdict]", self._scripts.run("advance", reports=written) if written else [])

    def preview(self, claim: Claim, preview: Preview) -> bool:
        """Publish a preview of an image; False if the lease was lost."""
        answer = self._scripts.run(
            "preview", **claim.reference(), preview=preview.model_dump(), max_bytes=_MAX_PREVIEW_BYTES
        )
        return bool(answer)

    def keep_checkpoint(self, claim: Claim, checkpoint: CheckpointRecord) -> bool:
        """Have a training hold its newest checkpoint, a retained file, in place of the one before it.

        Returns:
            False, without changing anything, if the lease was lost or the file was swept.
        """
        answer = self._scripts.run(
            "keep_checkpoint", **claim.reference(), checkpoint=checkpoint.model_dump(mode="json")
        )
        return bool(answer)

    def complete(
        self,
        claim: Claim,
        images: list[ImageRecord],
        receipt: Receipt,
        *,
        measured: Measured | None = None,
        used_seconds: float | None = None,
        energy: Energy | None = None,
    ) -> JobState | None:
        """Complete a job with its images; see `finish`.

        Args:
            measured: what the job cost, for predictions of later jobs.
        """
        return self.finish(
            claim,
            JobState.COMPLETED,
            measured=None if measured is None else measured.arguments(claim.job.parameters),
            used_seconds=used_seconds,
            energy=energy,
            images=[image.model_dump(mode="json") for image in images],
            receipt=receipt.model_dump(mode="json", exclude={"parameters"}),  # the record has them
        )

    def finish(
        self,
        claim: Claim,
        state: JobState,
        *,
        measured: object = None,
        used_seconds: float | None = None,
        energy: Energy | None = None,
        **fields: Any,
    ) -> JobState | None:
        """End a job with JSON-serializable fields of its record.

        Args:
            measured: the job's `work` and the `seconds` that it was denoised, for predictions of later jobs.
            used_seconds: worker time that the execution used, which its owner pays; None: as it reported last.
            energy: that the device drew for the execution; None: as it reported last.

        Returns:
            The state in which it ended: a cancel or a deadline that came before wins. None, without writing
            anything, if the lease was lost.
        """
        texts = {name: to_json(value) for name, value in fields.items()}
        extras = _without_none(measured=measured, used_seconds=used_seconds, energy=_dumped(energy))
        answer = self._scripts.run(
            "finish", **claim.reference(), **extras, state=state, fields=texts, ttl_seconds=self._ttl_seconds
        )
        return JobState(answer) if answer else None

    def fail(
        self,
        claim: Claim,
        error: JobError,
        *,
        used_seconds: float | None = None,
        energy: Energy | None = None,
    ) -> JobState | None:
        """End a job as failed; see `finish`."""
        fields = {"error": error.model_dump(mode="json")}
        return self.finish(claim, JobState.FAILED, used_seconds=used_seconds, energy=energy, **fields)

    def release(
        self,
        claim: Claim,
        *,
        device_failed: bool = False,
        needs: Sequence[str] = (),
        used_seconds: float | None = None,
        energy: Energy | None = None,
    ) -> bool:
        """Put a job back at the front of its queue without using up an attempt; False if the lease was lost.

        Args:
            device_failed: the worker's device failed while the job ran, perhaps because of the job: it runs alone
                from then on, and fails after `max_attempts` device failures.
            needs: what the job needs, where its record does not say so.
            used_seconds, energy: as for `finish`.
        """
        limit = self._settings.max_attempts if device_failed else 0
        known = {"used_seconds": used_seconds, "energy": _dumped(energy)}
        extras = _without_none(needs=to_json(list(needs)) if needs else None, **known)
        answer = self._scripts.run(
            "release", **claim.reference(), **extras, max_device_failures=limit, ttl_seconds=self._ttl_seconds
        )
        return bool(answer)

    def release_lost(self, known: Sequence[Claim]) -> int:
        """Release this worker's jobs not in `known`: the answer to their claim was lost. Return their number."""
        executions = [claim.execution for claim in known]
        answer = self._scripts.run(
            "release_lost", worker=self._worker, known=executions, ttl_seconds=self._ttl_seconds
        )
        return int(answer)

    def reap(self, *, leases: bool = True) -> tuple[int, list[str]]:
        """Requeue jobs whose lease has expired, and fail waiting jobs whose deadline has passed.

        Args:
            leases: whether to look at leases too.

        Returns:
            How many jobs were requeued, and the ids of jobs whose lease had expired and that ended instead.
        """
        requeued, ended = self._scripts.run(
            "reap", leases=leases, ttl_seconds=self._ttl_seconds, max_attempts=self._settings.max_attempts
        )
        return requeued, ended

    def waiting_jobs(self) -> WaitingJobs:
        """The jobs that wait, as this worker speaks to them."""
        return WaitingJobs(self.connection, self._worker, self._ttl_seconds)

    def _ask(self, criteria: ClaimCriteria, **arguments: Any) -> dict[str, Any]:
        """Run the script. Lua encodes an empty list as an empty object."""
        answer = self._scripts.run(
            "claim",
            worker=self._worker,
            warm=list(criteria.warm),
            settled=criteria.settled,
            deferred=list(criteria.deferred),
            room=dict(criteria.room),
            overdue_seconds=self._settings.overdue_seconds,
            scan_limit=self._settings.scan_limit,
            lower_tier_share=self._settings.lower_tier_share,
            **_without_none(ready=None if criteria.ready is None else list(criteria.ready)),
            **arguments,
        )
        return cast("dict[str, Any]", json.loads(answer))

    def _read(self, id: str) -> JobRecord:
        return read_record({"id": id, **cast("dict[str, str]", self.connection.hgetall(keys.JOB + id))})


def _dumped(energy: Energy | None) -> object:
    return None if energy is None else energy.model_dump(mode="json")


def _without_none(**arguments: object) -> dict[str, object]:
    """The arguments of a script that are there: it reads an absent one as nil."""
    return {name: value for name, value in arguments.items() if value is not None}
