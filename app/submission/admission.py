"""What would become of a job, by what the workers tell of their memory. Queues nothing and stores nothing.

A worker whose memory is not known is taken to be able to run everything.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from contracts.catalogue.catalogue import ModelSpec
from contracts.errors import FieldProblem, InvalidRequest
from contracts.memory.plan import Plan, gib
from contracts.queue.client import JobQueue
from contracts.queue.workers import WorkerReport, read_workers
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.requests.parameters import JobParameters

#: Workers report every few seconds; a busy API need not read all of it for every request.
_KEPT_SECONDS = 1.0
#: The smallest image there is, in pixels.
_LEAST_PIXELS = 64 * 64


@dataclass(frozen=True)
class Prospect:
    """One worker and its plan for a job; no plan where nothing is known of its memory."""

    worker: WorkerReport
    plan: Plan | None

    @property
    def runs(self) -> bool:
        """Whether it could run the job, as far as anybody knows."""
        return self.plan is None or self.plan.fits


class Admission:
    """Plans of jobs on the workers that are alive and stay."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._reports: tuple[float, list[WorkerReport]] = (float("-inf"), [])

    def of(self, model: ModelSpec, job: JobParameters) -> list[Prospect]:
        """Each worker's prospect, the one that would run it best first.

        Raises:
            Unavailable: Redis does not answer.
        """
        prospects = [
            Prospect(report, None if report.capacity is None else report.capacity.plan(model.family, job))
            for report in self._read()
            if report.state != "draining"
        ]
        return sorted(prospects, key=lambda one: _rank(one, job.model))

    def require(self, model: ModelSpec, job: JobParameters) -> None:
        """Refuse a job that none of the workers can run.

        Raises:
            InvalidRequest: with the best worker's reason, and what would fit there.
            Unavailable: Redis does not answer.
        """
        prospects = self.of(model, job)
        if prospects and not any(prospect.runs for prospect in prospects):
            plans = [prospect.plan for prospect in prospects if prospect.plan is not None]
            best = max(plans, key=lambda plan: plan.budget_bytes - plan.peak_bytes)
            raise InvalidRequest([explain(best, job)])

    def _read(self) -> list[WorkerReport]:
        read_at, reports = self._reports
        if time.monotonic() - read_at > _KEPT_SECONDS:
            with redis_errors_are_unavailable():
                reports = read_workers(self._queue.connection)
            self._reports = (time.monotonic(), reports)
        return reports


def explain(refusal: Plan, job: JobParameters) -> FieldProblem:
    """Why no worker can run it, which field asks for too much, and how much would do."""
    message = f"no worker's memory suffices: {refusal.reason}"
    if refusal.images > 1 and refusal.batch_images > 0:
        return FieldProblem("num_images", f"{message}; ask for fewer images at once", f"1–{refusal.batch_images}")
    if refusal.batch_pixels >= _LEAST_PIXELS:
        field = "width" if job.width >= job.height else "height"
        allowed = f"width × height ≤ {refusal.batch_pixels}"
        return FieldProblem(field, f"{message}; ask for a smaller image", allowed)
    extras = [part for part in refusal.components if part.role in ("controlnet", "adapter")]
    if sum(part.device_bytes for part in extras) >= refusal.peak_bytes - refusal.budget_bytes > 0:
        field = "controls" if any(part.role == "controlnet" for part in extras) else "loras"
        return FieldProblem(field, f"{message}; name fewer of them")
    least = f"a worker with {gib(refusal.peak_bytes)}, or another model"
    return FieldProblem("model", f"{message}; it needs {least}")


def _rank(prospect: Prospect, model: str) -> tuple[bool, bool, bool, float, str]:
    """Workers that can come first, then those that hold the model ready, idle ones, quick plans."""
    report, plan = prospect.worker, prospect.plan
    seconds = 0.0 if plan is None else plan.extra_seconds
    return not prospect.runs, model not in report.warm, report.state != "idle", seconds, report.id
