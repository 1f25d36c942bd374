"""A dry run: what would become of a request. Nothing is stored or queued."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from app.dependencies.calls import DryAcceptance, JsonBody
from app.dependencies.services import TheAdmission, TheQueue
from app.openapi.routes import MAKING, plan_body, problems
from app.parsing.requests import parse_any
from app.submission.admission import Admission, Prospect, explain
from app.submission.submit import Order, Prepared
from contracts.catalogue.families import Mode, Task
from contracts.memory.plan import Plan
from contracts.queue.client import JobQueue

router = APIRouter(prefix="/v1", tags=["jobs"])


class OutlookView(BaseModel):
    """One worker's outlook."""

    worker: str
    runs: bool
    warm: bool = Field(description="it holds the model ready")
    plan: str | None = Field(description="name of its plan; null where nothing is known of its memory")
    peak_bytes: int | None
    budget_bytes: int | None
    reason: str | None


class PlanView(BaseModel):
    """What would become of a request that is valid."""

    object: Literal["plan"] = "plan"
    task: Task
    mode: Mode
    model: str
    width: int
    height: int
    num_images: int
    runs: bool = Field(description="some worker that is alive could run it, or none has told of its memory")
    reason: str = Field(description="why this plan; where none runs, what the 422 of the request itself would say")
    field: str | None = Field(description="where none runs: the field that asks for too much")
    worker: str | None = Field(description="who would run it best now")
    warm: bool
    plan: Plan | None = Field(description="where each component would live there, and the bytes")
    run_seconds: float | None = Field(description="by the last job like it; null before there was one")
    estimated_seconds: float | None = Field(description="with what the plan costs beside everything resident")
    workers: list[OutlookView]


@router.post("/plan", openapi_extra=plan_body(), responses=problems(*MAKING))
async def plan_job(raw: JsonBody, acceptance: DryAcceptance, prospects: TheAdmission, queue: TheQueue) -> PlanView:
    """Try out `{"task": …, …}`, a request as the task's own route takes it: checked as there, and not queued."""

    def look() -> PlanView:
        prepared = acceptance.prepare(Order(parse_any(raw)))
        return _view(prepared, prospects, queue)

    return await run_in_threadpool(look)


def _view(prepared: Prepared, prospects: Admission, queue: JobQueue) -> PlanView:
    job = prepared.parameters
    every = prospects.of(prepared.model, job)
    best = every[0] if every else None
    plan = None if best is None else best.plan
    run_seconds = queue.run_seconds(job)
    runs = best is None or best.runs
    problem = None if runs or plan is None else explain(plan, job)
    return PlanView(
        task=job.task,
        mode=job.mode,
        model=job.model,
        width=job.width,
        height=job.height,
        num_images=job.num_images,
        runs=runs,
        reason=_reason(best) if problem is None else problem.message,
        field=None if problem is None else problem.field,
        worker=best.worker.id if best is not None and runs else None,
        warm=best is not None and job.model in best.worker.warm,
        plan=plan,
        run_seconds=run_seconds,
        estimated_seconds=None if run_seconds is None else run_seconds + (plan.extra_seconds if plan else 0.0),
        workers=[_outlook(one, job.model) for one in every],
    )


def _reason(best: Prospect | None) -> str:
    if best is None:
        return "no worker is alive; the job would wait for one"
    if best.plan is None:
        return "nothing is known of the worker's memory yet"
    return f"{best.plan.name}: {best.plan.reason}"


def _outlook(prospect: Prospect, model: str) -> OutlookView:
    report, plan = prospect.worker, prospect.plan
    return OutlookView(
        worker=report.id,
        runs=prospect.runs,
        warm=model in report.warm,
        plan=plan and plan.name,
        peak_bytes=plan and plan.peak_bytes,
        budget_bytes=report.budget_bytes if plan is None else plan.budget_bytes,
        reason=plan and plan.reason,
    )
