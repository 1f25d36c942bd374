"""The workers' side of the queue: claim, extend, advance, finish, release, reap. Each is one atomic step.

A claim leases a job under an execution id, a fencing token: the scripts check it before every write, so a worker
that has lost the lease writes nothing. Knows nothing of pipelines.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from redis import Redis

from contracts.errors import FailureCode
from contracts.logs import bound, hide
from contracts.queue.events import Preview
from contracts.queue.record_reader import UnreadableJob, read_record
from contracts.queue.records import (
    ImageRecord,
    JobError,
    JobRecord,
    JobState,
    Progress,
    Receipt,
    to_json,
    work_of,
)
from contracts.queue.waiting_jobs import WaitingJobs
from contracts.redis import keys
from contracts.redis.connection import Scripts
from contracts.requests.fields import PROMPT_FIELDS
from contracts.settings import QueueSettings

_log = logging.getLogger(__name__)

Verdict = Literal["on", "lost", "cancel", "deadline", "overtime"]

#: Previews that a job's event stream keeps for clients that connect later.
_MAX_PREVIEW_BYTES = 256 * 1024


@dataclass(frozen=True)
class Claim:
    """A job that a worker has leased.

    Attributes:
        job: its record at the time of the claim.
        execution: the fencing token.
    """

    job: JobRecord
    execution: str

    def reference(self) -> dict[str, str]:
        """Return the arguments by which the scripts identify the claim."""
        return {"id": self.job.id, "execution": self.execution}


@dataclass(frozen=True)
class ClaimCriteria:
    """The jobs that a worker can take.

    Attributes:
        warm: models that are loaded.
        settled: whether the resident model has had its minimum residency, so that an overdue job may replace it.
        max_images: maximum number of images in one pipeline call.
        max_pixels: maximum number of pixels in one pipeline call, for every model.
        model_pixels: model -> maximum number of pixels, where memory allows fewer.
        max_adapters: maximum number of distinct adapters in one pipeline call; a single job may have more.
        batching: whether jobs may share a pipeline call.
        batch_wait_seconds: how long a batchable job waits for others to run with.
        ready: what can be used without preparation, named as in `JobParameters.needs`; None: everything.
        deferred: names of what is being prepared or cannot be prepared for now: jobs that need it are skipped.
    """

    warm: Collection[str] = ()
    settled: bool = True
    max_images: int = 1
    max_pixels: int = 2**31
    model_pixels: Mapping[str, int] = field(default_factory=dict)
    max_adapters: int = 16
    batching: bool = False
    batch_wait_seconds: float = 0.0
    ready: Collection[str] | None = None
    deferred: Collection[str] = ()


@dataclass(frozen=True)
class NextJobs:
    """Jobs that would be leased next.

    Attributes:
        unready: names of what must be prepared before the next job, or others beside it, can run.
    """

    jobs: Sequence[JobRecord]
    unready: Sequence[str]


class NotReady(Exception):
    """The next job needs something that must be prepared first; nothing was claimed.

    Attributes:
        names: of all that it lacks, as in `JobParameters.needs`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names))
        self.names = tuple(names)


class ClaimDeferred(Exception):
    """All waiting jobs still wait for others to run with; nothing was claimed.

    Attributes:
        seconds: time until the first of them can be claimed alone.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.3f} s")
        self.seconds = seconds


@contextmanager
def job_context(jobs: Sequence[JobRecord]) -> Iterator[None]:
    """Add the ids of the jobs and their requests to log lines in the block, and keep their prompts out of them."""
    requests = dict.fromkeys(job.request_id for job in jobs if job.request_id)
    with bound(job_id=",".join(job.id for job in jobs), request_id=",".join(requests)):
        for job in jobs:
            parameters = job.parameters
            for name in PROMPT_FIELDS:
                hide(getattr(parameters, name), parameters.text_of(name))
        yield


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

    def claim(self, criteria: ClaimCriteria) -> list[Claim]:
        """Lease waiting jobs that one pipeline call can serve, up to `max_images` images; empty if no job waits.

        A job whose record cannot be read fails here.

        Raises:
            NotReady: the next job needs something that is not in `ready`.
            ClaimDeferred: all waiting jobs still wait for others to run with, up to `batch_wait_seconds`.
        """
        while True:
            executions = [uuid.uuid4().hex for _ in range(criteria.max_images)]
            answer = self._ask(
                criteria, executions=executions, worker=self._worker, lease_seconds=self._settings.lease_seconds
            )
            if isinstance(answer, dict):
                if "wait_seconds" in answer:
                    raise ClaimDeferred(answer["wait_seconds"])
                raise NotReady(answer["unready"])
            claims = self._readable([Claim(self._read(id), execution) for id, execution in answer])
            if claims or not answer:
                return claims

    def _readable(self, claims: list[Claim]) -> list[Claim]:
        """The claims whose jobs can be run; the others fail."""
        for claim in claims:
            if isinstance(claim.job, UnreadableJob):
                error = claim.job.error or JobError.of(FailureCode.UNREADABLE, "the job's record cannot be read")
                _log.error("job failed: %s", error.message, extra={"job_id": claim.job.id})
                self.fail(claim, error)
        return [claim for claim in claims if not isinstance(claim.job, UnreadableJob)]

    def peek(self, criteria: ClaimCriteria) -> NextJobs:
        """Find the jobs that a claim would lease now if no job waited for others; leases none."""
        answer = self._ask(criteria, peek=True)
        found = answer if isinstance(answer, dict) else {}
        jobs = [self._read(id) for id in found.get("ids", ())]
        unready = dict.fromkeys(found.get("unready") or ())
        return NextJobs([job for job in jobs if not isinstance(job, UnreadableJob)], list(unready))

    def extend(self, claims: Sequence[Claim]) -> set[str]:
        """Extend the leases; return the ids of jobs whose lease was lost."""
        executions = [claim.reference() for claim in claims]
        return set(
            self._scripts.run("extend", executions=executions, lease_seconds=self._settings.lease_seconds)
            if executions
            else ()
        )

    def advance(self, claims: Sequence[Claim], progress: Progress | None = None) -> list[Verdict]:
        """Write the progress of jobs that run together, if there is any; return for each whether to continue."""
        executions = [claim.reference() for claim in claims]
        written = {} if progress is None else {"progress": progress.model_dump()}
        return cast("list[Verdict]", self._scripts.run("advance", executions=executions, **written))

    def preview(self, claim: Claim, preview: Preview) -> bool:
        """Publish a preview of an image; False if the lease was lost."""
        answer = self._scripts.run(
            "preview", **claim.reference(), preview=preview.model_dump(), max_bytes=_MAX_PREVIEW_BYTES
        )
        return bool(answer)

    def complete(self, claim: Claim, images: list[ImageRecord], receipt: Receipt) -> JobState | None:
        """Complete a job with its images; see `finish`."""
        parameters, denoise_seconds = claim.job.parameters, receipt.timings.get("denoise")
        measured = None
        if denoise_seconds is not None:
            own_seconds = (
                denoise_seconds * parameters.num_images / max(receipt.batch_images, parameters.num_images)
            )
            measured = {"work": work_of(parameters), "seconds": own_seconds}
        return self.finish(
            claim,
            JobState.COMPLETED,
            measured=measured,
            images=[image.model_dump(mode="json") for image in images],
            receipt=receipt.model_dump(mode="json", exclude={"parameters"}),  # the record has them
        )

    def finish(self, claim: Claim, state: JobState, *, measured: object = None, **fields: Any) -> JobState | None:
        """End a job with JSON-serializable fields of its record.

        Args:
            measured: the job's `work` and the `seconds` that it was denoised, for predictions of later jobs.

        Returns:
            The state in which it ended: a cancel or a deadline that came before wins. None, without writing
            anything, if the lease was lost.
        """
        texts = {name: to_json(value) for name, value in fields.items()}
        extras = {} if measured is None else {"measured": measured}
        answer = self._scripts.run(
            "finish", **claim.reference(), **extras, state=state, fields=texts, ttl_seconds=self._ttl_seconds
        )
        return JobState(answer) if answer else None

    def fail(self, claim: Claim, error: JobError) -> JobState | None:
        """End a job as failed; see `finish`."""
        return self.finish(claim, JobState.FAILED, error=error.model_dump(mode="json"))

    def release(self, claim: Claim, *, device_failed: bool = False, needs: Sequence[str] = ()) -> bool:
        """Put a job back at the front of its queue without using up an attempt; False if the lease was lost.

        Args:
            device_failed: the worker's device failed while the job ran, perhaps because of the job: it runs alone
                from then on, and fails after `max_attempts` device failures.
            needs: what the job needs, where its record does not say so.
        """
        limit = self._settings.max_attempts if device_failed else 0
        extras = {"needs": to_json(list(needs))} if needs else {}
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

    def _ask(self, criteria: ClaimCriteria, **arguments: Any) -> list[Any] | dict[str, Any]:
        """Run the script; return jobs, or a dict with the reason for none. Lua encodes an empty list as a dict."""
        ready = {} if criteria.ready is None else {"ready": list(criteria.ready)}
        answer = self._scripts.run(
            "claim",
            warm=list(criteria.warm),
            settled=criteria.settled,
            max_images=criteria.max_images,
            max_pixels=criteria.max_pixels,
            model_pixels=dict(criteria.model_pixels),
            max_adapters=criteria.max_adapters,
            batching=criteria.batching,
            batch_wait_seconds=criteria.batch_wait_seconds,
            deferred=list(criteria.deferred),
            overdue_seconds=self._settings.overdue_seconds,
            scan_limit=self._settings.scan_limit,
            lower_tier_share=self._settings.lower_tier_share,
            **ready,
            **arguments,
        )
        return json.loads(answer) or []

    def _read(self, id: str) -> JobRecord:
        return read_record({"id": id, **cast("dict[str, str]", self.connection.hgetall(keys.JOB + id))})
