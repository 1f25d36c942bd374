"""The spans of a job: queued by the API, waiting, each attempt of a worker and its stages.

Attributes follow OpenTelemetry's conventions for messaging where these have a name. A worker's jobs share its
thread, so an attempt's spans are written once it has ended, from the times that were noted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from contracts.jobs.records import JobRecord
from contracts.requests.schema import Priority
from contracts.requests.task_parameters import TaskParameters
from contracts.tracing.trace_context import TraceContext
from contracts.tracing.tracing import Attributes, Span, Tracing

#: Of `messaging.system`: jobs are RQ's, in Redis.
_SYSTEM = "rq"
#: How attempts end without anything having gone wrong with the job.
_ORDERLY = frozenset({"completed", "cancelled", "released"})


@dataclass
class Stages:
    """Stages of one attempt at a job, as they end. One thread at a time.

    Attributes:
        begun_at: Unix seconds, when the job was claimed.
        ended: name, and Unix seconds of its beginning and its end.
        steps: denoising steps so far.
    """

    begun_at: float = field(default_factory=time.time)
    ended: list[tuple[str, float, float]] = field(default_factory=list)
    steps: int = 0

    def note(self, stage: str, seconds: float) -> None:
        """A stage that took this long has just ended."""
        now = time.time()
        self.ended.append((stage, now - seconds, now))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """The block is a stage, however it ends."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.note(stage, time.perf_counter() - started)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job, after its end.

    Attributes:
        outcome: how it ended, as in the log: completed, failed, cancelled, released, device_failed or lost.
        code: of its failure; empty unless it failed.
    """

    job: JobRecord
    stages: Stages
    outcome: str
    code: str = ""


@contextmanager
def submitting(
    tracing: Tracing, parent: TraceContext | None, parameters: TaskParameters, priority: Priority
) -> Iterator[Span]:
    """A span of the producer around the queueing of a job; its context is the job's."""
    attributes: Attributes = {
        **_messaging("submit", "send", parameters),
        "darkroom.priority": priority.value,
        **_work_of(parameters),
    }
    span = tracing.start(f"submit {parameters.model}", "producer", parent, attributes)
    try:
        yield span
    except Exception as error:
        span.fail(type(error).__name__)
        raise
    finally:
        span.end()


def trace_attempt(tracing: Tracing, attempt: Attempt) -> None:
    """Write an attempt: a span of a consumer, a child of the one that queued the job, and one for each stage.

    A further attempt is a further such span in the same trace. Beside the first one stands the time in the queue.
    """
    job, stages = attempt.job, attempt.stages
    context, parameters = job.trace_context, job.parameters
    if job.attempts <= 1:
        waiting = {"messaging.message.id": job.id, "messaging.destination.name": parameters.model}
        span = tracing.start("queue", "internal", context, waiting, at=job.created_at)
        span.end(at=max(job.created_at, job.started_at or job.created_at))
    attributes: Attributes = {
        **_messaging("process", "process", parameters),
        "messaging.message.id": job.id,
        "darkroom.attempt": job.attempts,
        "darkroom.outcome": attempt.outcome,
        **_work_of(parameters),
    }
    span = tracing.start(f"process {parameters.model}", "consumer", context, attributes, at=stages.begun_at)
    for name, begun_at, ended_at in stages.ended:
        steps: Attributes = {"darkroom.steps": stages.steps} if name == "denoise" else {}
        tracing.start(name, "internal", span.context, steps, at=begun_at).end(at=ended_at)
    if attempt.outcome not in _ORDERLY:
        span.fail(attempt.code or attempt.outcome)
    span.end()


def _messaging(name: str, kind: str, parameters: TaskParameters) -> dict[str, str]:
    return {
        "messaging.system": _SYSTEM,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": parameters.model,
    }


def _work_of(parameters: TaskParameters) -> dict[str, str | int]:
    named = {"steps": "num_inference_steps"}
    return {
        f"darkroom.{named.get(name, name)}": value
        for name, value in parameters.for_log().items()
        if name != "model"
    }
