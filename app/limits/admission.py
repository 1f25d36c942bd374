"""Admission: whether any live worker has the memory to run a job, and in time. Queues nothing and stores nothing.

A worker that has not reported its memory is assumed to be able to run everything.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from redis import Redis

from contracts.byte_sizes import gib
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem, InvalidRequest, ModelUnavailable
from contracts.memory.plan import Plan
from contracts.memory.sizes.networks import least_bytes
from contracts.memory.training import refusal
from contracts.processes.workers import WorkerReport, read_workers, refusal_of
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.requests.parameters import JobParameters
from contracts.requests.task_parameters import TaskParameters
from contracts.requests.training.parameters import TrainingParameters
from contracts.requests.training.settings import EIGHT_BIT

#: Workers report every few seconds, so their reports are not read for every request.
_CACHE_SECONDS = 1.0
#: After which a worker tries again what it failed to load.
_RETRY_SECONDS = 60
#: The smallest image that can be requested, in pixels.
_MIN_PIXELS = 64 * 64


@dataclass(frozen=True)
class Feasibility:
    """One worker and its memory plan for a job; the plan is None while the worker's memory is unknown."""

    worker: WorkerReport
    plan: Plan | None

    @property
    def runs(self) -> bool:
        """Whether the worker can run the job, as far as is known."""
        return self.plan is None or self.plan.fits


class Admission:
    """A check of jobs against the memory of the live workers; workers that are shutting down do not count."""

    def __init__(self, connection: Redis) -> None:
        """`connection` decodes responses."""
        self._connection = connection
        self._reports: tuple[float, list[WorkerReport]] = (float("-inf"), [])

    def assess(self, model: ModelSpec, job: JobParameters) -> list[Feasibility]:
        """Whether and how each worker can run a job, the most suitable worker first.

        Raises:
            Unavailable: Redis does not answer.
        """
        assessed = [
            Feasibility(
                report, None if report.capacity is None else report.capacity.plan(model.family_spec.id, job)
            )
            for report in self._read()
            if report.state != "draining"
        ]
        return sorted(assessed, key=lambda feasibility: _rank(feasibility, job.model))

    def require(self, model: ModelSpec, job: JobParameters) -> None:
        """Refuse a job that no live worker can run. Without live workers every job is admitted, and waits.

        Raises:
            InvalidRequest: why the best worker cannot run it, and what it could run.
            Unavailable: Redis does not answer.
        """
        workers = self.assess(model, job)
        if workers and not any(worker.runs for worker in workers):
            plans = [worker.plan for worker in workers if worker.plan is not None]
            best = max(plans, key=lambda plan: plan.budget_bytes - plan.peak_bytes)
            raise InvalidRequest([explain(best, job)])
        if job.hires is not None and job.hires.network is not None:
            self.require_network("hires.upscaler", f"upscaler:{job.hires.network}", (job.width, job.height))

    def require_network(self, field: str, name: str, size: tuple[int, int]) -> None:
        """Refuse a job whose upscaler or eraser no live worker has the memory for, even in the smallest pieces.

        Args:
            field: that names it.
            name: as in `JobParameters.needs`.
            size: of the image that it is given, in pixels.

        Raises:
            InvalidRequest: none has; a worker that has not read the file yet counts as one that has.
            Unavailable: Redis does not answer.
        """
        capacities = [report.capacity for report in self._read() if report.state != "draining"]
        known = [one for one in capacities if one is not None and name in one.networks]
        if not known or len(known) < len(capacities):
            return
        needed = min(least_bytes(one.networks[name], size) for one in known)
        largest = max(one.budget_bytes for one in known)
        if needed > largest:
            message = (
                f"no worker has enough memory: {name.partition(':')[2]} needs {gib(needed)} of {gib(largest)}"
            )
            raise InvalidRequest(
                [FieldProblem(field, f"{message}; use another one, or a worker with more memory")]
            )

    def require_trainer(self, model: ModelSpec, training: TrainingParameters) -> None:
        """Refuse a training that no live worker can run, as `require`.

        Raises:
            InvalidRequest: none trains, or none has the memory.
            Unavailable: Redis does not answer.
        """
        workers = self.assess(model, training.sample)
        trainers = [one for one in workers if one.worker.trains]
        if workers and not trainers:
            message = (
                "no worker runs trainings (DARKROOM_WORKER_TRAINING is never on all of them); ask the operator "
                "to allow them"
            )
            raise InvalidRequest([FieldProblem("model", message)])
        has_8bit = any(EIGHT_BIT in one.worker.ready for one in trainers)
        if trainers and EIGHT_BIT in training.needs and not has_8bit:
            message = "adamw8bit needs the package bitsandbytes, and no worker that trains has it; use adamw"
            raise InvalidRequest([FieldProblem("optimizer", message, ["adamw"])])
        reasons = [_training_refusal(one, training, model.family) for one in trainers]
        if reasons and None not in reasons:
            message = f"no worker has enough memory to train: {reasons[0]}"
            sizes = (
                "resolution, batch_size or rank"
                if training.settings.kind == "lora"
                else "resolution or batch_size"
            )
            remedy = f"use a smaller {sizes}, or another model"
            raise InvalidRequest([FieldProblem("resolution", f"{message}; {remedy}")])

    def require_usable(self, job: TaskParameters) -> None:
        """Refuse a job that would fail at once, since every worker has failed to load what it needs.

        Raises:
            ModelUnavailable: what cannot be used, and why.
            Unavailable: Redis does not answer.
        """
        reports = self._read()
        for name in job.needs:
            reason = refusal_of(name, reports)
            if reason is not None:
                kind = name.partition(":")[0] if ":" in name else "model"
                if kind == "model" and isinstance(job, JobParameters) and name != job.model:
                    raise ModelUnavailable(f"{job.later_stage}.model", reason, _RETRY_SECONDS)
                field = {
                    "lora": "loras",
                    "controlnet": "controls",
                    "ip_adapter": "ip_adapters",
                    "textual_inversion": "textual_inversions",
                }.get(kind, "model")
                if kind == "upscaler" and isinstance(job, JobParameters):
                    field = "hires.upscaler"
                raise ModelUnavailable(field, reason, _RETRY_SECONDS)

    def _read(self) -> list[WorkerReport]:
        read_at, reports = self._reports
        if time.monotonic() - read_at > _CACHE_SECONDS:
            with redis_errors_are_unavailable():
                reports = read_workers(self._connection)
            self._reports = (time.monotonic(), reports)
        return reports


def _training_refusal(worker: Feasibility, training: TrainingParameters, family: str) -> str | None:
    """Why a worker has too little memory for a training; None: it has enough, as far as is known."""
    if worker.plan is None or worker.worker.capacity is None:
        return None
    return refusal(worker.plan, training, worker.worker.capacity.models[training.model].value_bytes, family)


def too_long(job: TaskParameters, run_seconds: float | None, max_seconds: float) -> FieldProblem | None:
    """Why a job may not take as long as predicted: the field that asks for too much, and the most that would fit.

    Args:
        run_seconds: predicted time; None before the first job of its model: such a job is admitted.
    """
    if run_seconds is None or run_seconds <= max_seconds:
        return None
    message = f"the job is predicted to take {run_seconds:.0f} s, and a job may take {max_seconds:.0f} s here"
    if isinstance(job, TrainingParameters):
        steps = int(max_seconds / run_seconds * job.settings.steps)
        return FieldProblem("steps", f"{message}; ask for fewer steps", f"1–{max(1, steps)}")
    if not isinstance(job, JobParameters):
        return FieldProblem("image", f"{message}; send a smaller image")
    images = int(max_seconds / run_seconds * job.num_images)
    if images >= 1:
        return FieldProblem("num_images", f"{message}; ask for fewer images at once", f"1–{images}")
    steps = int(max_seconds / run_seconds * job.num_images * job.num_inference_steps)
    if steps >= 1:
        also = "" if job.num_images == 1 else ", one image at a time"
        return FieldProblem("num_inference_steps", f"{message}; ask for fewer steps{also}", f"1–{steps}")
    field = "width" if job.width >= job.height else "height"
    return FieldProblem(field, f"{message}; ask for a smaller image")


def explain(refusal: Plan, job: JobParameters) -> FieldProblem:
    """Why no worker can run a job: the field that asks for too much, and the largest value that would fit."""
    message = f"no worker has enough memory: {refusal.reason}"
    if refusal.images > 1 and refusal.batch_images > 0:
        return FieldProblem("num_images", f"{message}; ask for fewer images at once", f"1–{refusal.batch_images}")
    if job.hires is not None and refusal.batch_pixels >= job.width * job.height:
        allowed = f"width × height × scale² ≤ {refusal.batch_pixels}"
        return FieldProblem("hires.scale", f"{message}; ask for a smaller scale", allowed)
    if refusal.batch_pixels >= _MIN_PIXELS:
        field = "width" if job.width >= job.height else "height"
        allowed = f"width × height ≤ {refusal.batch_pixels}"
        return FieldProblem(field, f"{message}; ask for a smaller image", allowed)
    extras = [part for part in refusal.components if part.role in ("controlnet", "adapter")]
    if sum(part.device_bytes for part in extras) >= refusal.peak_bytes - refusal.budget_bytes > 0:
        kinds = {"controlnet": "controls", "ip_adapter": "ip_adapters"}
        largest = max(extras, key=lambda part: (part.role == "controlnet", part.device_bytes))
        field = kinds.get(largest.name.partition(":")[0], "loras")
        return FieldProblem(field, f"{message}; use fewer of them")
    return FieldProblem("model", f"{message}; use another model, or a worker with {gib(refusal.peak_bytes)}")


def _rank(feasibility: Feasibility, model: str) -> tuple[bool, bool, bool, float, str]:
    """Sort key: workers that can run the job first, then those with the model loaded, idle ones, fast plans."""
    report, plan = feasibility.worker, feasibility.plan
    seconds = 0.0 if plan is None else plan.extra_seconds
    return not feasibility.runs, model not in report.warm, report.state != "idle", seconds, report.id
