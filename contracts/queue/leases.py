"""The workers' side of the queue: claim, extend, advance, finish, hand back, reap. Each is one atomic step.

A claim gives a lease under an execution id. Whoever no longer holds the lease writes nothing: the fence
stands in the scripts, in front of every write. Knows nothing of pipelines.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from redis import Redis

from contracts.logs import bound, hide
from contracts.queue.events import Preview
from contracts.queue.records import ImageRecord, JobError, JobRecord, JobState, Progress, Receipt, pace_key
from contracts.redis import keys
from contracts.redis.connection import Scripts
from contracts.settings import QueueSettings

Verdict = Literal["on", "lost", "cancel", "deadline"]


@dataclass(frozen=True)
class Claim:
    """One job in this worker's hands.

    Attributes:
        job: the record as it was when claimed.
        execution: the fencing token.
    """

    job: JobRecord
    execution: str

    def reference(self) -> dict[str, str]:
        """What the scripts know it by."""
        return {"id": self.job.id, "execution": self.execution}


@dataclass(frozen=True)
class ClaimCriteria:
    """What a worker asks for.

    Attributes:
        warm: models that it holds ready.
        settled: whether the resident model has had its minimum residency.
        max_images: images that one pipeline call may make.
        max_pixels: pixels that one pipeline call may make of any model.
        model_pixels: model -> pixels, where memory allows fewer.
        max_adapters: distinct adapters that one pipeline call may have; a job may have more of its own.
        batching: whether jobs may share a call at all.
        batch_wait_seconds: how long a lone batchable job may be left waiting for company.
        ready: models, and ControlNets as `controlnet:ID`, that need not be made ready first; None: all.
        deferred: those whose jobs are left where they are.
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


class NotReady(Exception):
    """What the job whose turn it is needs must be made ready first; nothing was claimed.

    Attributes:
        name: a model's id, or `controlnet:ID`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class ClaimDeferred(Exception):
    """All jobs that wait may still be joined by others; nothing was claimed.

    Attributes:
        seconds: until the first of them can be claimed alone.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.3f} s")
        self.seconds = seconds


@contextmanager
def job_context(jobs: Sequence[JobRecord]) -> Iterator[None]:
    """Log lines written in the block name these jobs and their requests, and quote no prompt of theirs."""
    requests = dict.fromkeys(job.request_id for job in jobs if job.request_id)
    with bound(job_id=",".join(job.id for job in jobs), request_id=",".join(requests)):
        for job in jobs:
            given = job.parameters
            hide(given.prompt, given.prompt_2, given.prompt_3, given.negative_prompt)
        yield


class Claims:
    """Leases of one worker."""

    def __init__(self, connection: Redis, settings: QueueSettings, worker: str, ttl_seconds: int) -> None:
        """`connection` decodes responses; `ttl_seconds` is how long a finished job is kept."""
        self.connection = connection
        self._settings = settings
        self._worker = worker
        self._ttl_seconds = ttl_seconds
        self._scripts = Scripts(connection)

    @property
    def lease_seconds(self) -> float:
        """How long a lease lasts without a beat."""
        return self._settings.lease_seconds

    def claim(self, criteria: ClaimCriteria) -> list[Claim]:
        """Up to `max_images` images of waiting jobs that one pipeline call can serve; empty when none waits.

        Raises:
            NotReady: the job whose turn it is needs a model or ControlNet that is not in `ready`.
            ClaimDeferred: all jobs that wait may still be joined by others, for `batch_wait_seconds`.
        """
        executions = [uuid.uuid4().hex for _ in range(criteria.max_images)]
        answer = self._ask(
            criteria, executions=executions, worker=self._worker, lease_seconds=self._settings.lease_seconds
        )
        if isinstance(answer, dict):
            if "wait_seconds" in answer:
                raise ClaimDeferred(answer["wait_seconds"])
            raise NotReady(answer["unready"])
        return [Claim(self._read(id), execution) for id, execution in answer]

    def peek(self, criteria: ClaimCriteria) -> list[JobRecord]:
        """The jobs that a claim would take now, company that one of them may wait for left aside; takes none."""
        answer = self._ask(criteria, peek=True)
        return [] if isinstance(answer, dict) else [self._read(id) for id in answer]

    def extend(self, claims: Sequence[Claim]) -> set[str]:
        """Extend the leases; returns the ids of jobs that are no longer ours."""
        executions = [claim.reference() for claim in claims]
        return set(
            self._scripts.run("extend", executions=executions, lease_seconds=self._settings.lease_seconds)
            if executions
            else ()
        )

    def advance(self, claims: Sequence[Claim], progress: Progress) -> list[Verdict]:
        """Write the progress of a batch and learn, of each job, whether to go on."""
        executions = [claim.reference() for claim in claims]
        verdicts = self._scripts.run("advance", executions=executions, progress=progress.model_dump())
        return cast("list[Verdict]", verdicts)

    def preview(self, claim: Claim, preview: Preview) -> bool:
        """Tell the job's listeners how an image looks by now; False when the job is no longer ours."""
        return bool(self._scripts.run("preview", **claim.reference(), preview=preview.model_dump()))

    def complete(self, claim: Claim, images: list[ImageRecord], receipt: Receipt) -> bool:
        """End a job with its images; False when it was no longer ours, and nothing is written."""
        parameters, denoise_seconds = claim.job.parameters, receipt.timings.get("denoise")
        pace = None
        if denoise_seconds is not None:
            pace = {"key": pace_key(parameters), "step_seconds": denoise_seconds / parameters.num_inference_steps}
        return self.finish(
            claim,
            JobState.COMPLETED,
            pace=pace,
            images=[image.model_dump(mode="json") for image in images],
            receipt=receipt.model_dump(mode="json"),
        )

    def finish(self, claim: Claim, state: JobState, *, pace: object = None, **fields: Any) -> bool:
        """End a job with JSON-able fields of its record; False when it was no longer ours."""
        texts = {name: json.dumps(value) for name, value in fields.items()}
        extras = {} if pace is None else {"pace": pace}
        answer = self._scripts.run(
            "finish", **claim.reference(), **extras, state=state, fields=texts, ttl_seconds=self._ttl_seconds
        )
        return bool(answer)

    def fail(self, claim: Claim, error: JobError) -> bool:
        """End a job as failed; False when it was no longer ours."""
        return self.finish(claim, JobState.FAILED, error=error.model_dump(mode="json"))

    def release(self, claim: Claim, *, device_failed: bool = False) -> bool:
        """Put a job back in front of its queue without spending an attempt; False when it was no longer ours.

        Args:
            device_failed: the worker's device failed while the job ran, perhaps because of it: it runs alone from
                now on, and fails once `max_attempts` workers have met that.
        """
        limit = self._settings.max_attempts if device_failed else 0
        return bool(
            self._scripts.run(
                "release", **claim.reference(), max_device_failures=limit, ttl_seconds=self._ttl_seconds
            )
        )

    def release_lost(self, known: Sequence[Claim]) -> int:
        """Hand back, unspent, all that this worker holds but for what it knows: a claim's answer was lost."""
        executions = [claim.execution for claim in known]
        return int(self._scripts.run("release_lost", worker=self._worker, known=executions))

    def reap(self) -> tuple[int, list[str]]:
        """Requeue what silent workers held; returns how many, and the ids of jobs that were given up."""
        requeued, lost = self._scripts.run(
            "reap", ttl_seconds=self._ttl_seconds, max_attempts=self._settings.max_attempts
        )
        return requeued, lost

    def _ask(self, criteria: ClaimCriteria, **arguments: Any) -> list[Any] | dict[str, Any]:
        """A list of jobs, or a dict that names what is not ready. Lua's empty table is a dict, too."""
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
            **ready,
            **arguments,
        )
        return json.loads(answer) or []

    def _read(self, id: str) -> JobRecord:
        return JobRecord.from_hash(cast("dict[str, str]", self.connection.hgetall(keys.JOB + id)))
