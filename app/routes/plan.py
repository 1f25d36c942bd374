"""A dry run: whether and how a request would run. Stores and queues nothing."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from app.dependencies.bodies import JsonBodyDep
from app.dependencies.submissions import ChecksDep
from app.limits.admission import Feasibility, explain
from app.openapi.bodies import plan_body
from app.openapi.routes import MAKING, problems
from app.parsing.requests import read_any
from app.services import Services
from app.submission.checks import CheckedJob, JobDraft
from contracts.catalogue.families import Mode, Task
from contracts.errors import FieldProblem
from contracts.memory.plan import Placement, Plan
from contracts.prompts.tokens import TokenUse

router = APIRouter(prefix="/v1", tags=["jobs"])


class FeasibilityView(BaseModel):
    """Feasibility of the request on one worker."""

    worker: str = Field(description="Id of the worker.")
    runs: bool = Field(description="Whether it can run the request.")
    warm: bool = Field(description="Whether it has the model loaded.")
    plan: str | None = Field(description="Name of the memory plan; null while the worker's memory is unknown.")
    peak_bytes: int | None = Field(
        description="Maximum device memory that the request would take, in bytes; null while unknown."
    )
    budget_bytes: int | None = Field(
        description="Device memory that the worker may use, in bytes; null if it is not limited."
    )
    reason: str | None = Field(
        description="Why this plan was chosen, or why none fits; null while the worker's memory is unknown."
    )


class PlanView(BaseModel):
    """Plan for a valid request, as it would run now."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["plan"] = Field("plan", description="Always `plan`.")
    task: Task = Field(description="Task of the request.")
    mode: Mode = Field(
        description="Pipeline that the job would run on: its task, or for ControlNet also whether it has an "
        "image or a mask."
    )
    model: str = Field(description="Id of the model.")
    width: int = Field(description="Width of the images in pixels.")
    height: int = Field(description="Height of the images in pixels.")
    num_images: int = Field(description="Number of images.")
    prompt_tokens: dict[str, TokenUse] | None = Field(
        description="Text encoder -> tokens of the prompt, and how many of them it would read; null where the "
        "model's tokenizers are not on the API's machine."
    )
    negative_prompt_tokens: dict[str, TokenUse] | None = Field(
        description="The same for the negative prompt; null without one."
    )
    runs: bool = Field(
        description="Whether a worker can run it; also true while no worker has reported its memory."
    )
    reason: str = Field(
        description="Why this plan was chosen; if `runs` is false, why the request would be refused."
    )
    field: str | None = Field(description="The field that asks for too much; null if `runs` is true.")
    worker: str | None = Field(description="The most suitable worker now; null unless you are an admin.")
    warm: bool = Field(description="Whether that worker has the model loaded.")
    placement: dict[str, Placement] | None = Field(
        description="Component -> where that worker would place it; null while its memory is unknown."
    )
    peak_bytes: int | None = Field(
        description="Maximum device memory that the request would take there, in bytes; null while unknown."
    )
    plan: Plan | None = Field(
        description="The worker's memory plan for the request; null unless you are an admin, since it reveals the "
        "worker's memory."
    )
    run_seconds: float | None = Field(
        description="Seconds of denoising, predicted from earlier jobs; null before the first job of its model."
    )
    estimated_seconds: float | None = Field(
        description="`run_seconds` plus what the plan costs where components do not stay on the device; null "
        "before the first job of its model."
    )
    workers: list[FeasibilityView] = Field(description="All workers; empty unless you are an admin.")


@router.post("/plan", openapi_extra=plan_body(), responses=problems(*MAKING))
async def plan_job(body: JsonBodyDep, checks: ChecksDep) -> PlanView:
    """Check a request without queueing it: `{"task": …, …}` with the fields of the task's own route."""

    def plan() -> PlanView:
        job = checks.check(JobDraft(read_any(body.raw)))
        view = _view(job, checks.services, checks.predict_overtime(job.parameters))
        return view if checks.principal.is_admin else _without_workers(view)

    return await run_in_threadpool(plan)


def _view(checked: CheckedJob, services: Services, overtime: FieldProblem | None) -> PlanView:
    job = checked.parameters
    workers = services.admission.assess(checked.model, job)
    best = workers[0] if workers else None
    plan = None if best is None else best.plan
    run_seconds = services.queue.eta.run_seconds(job)
    runs = best is None or best.runs
    problem = overtime if runs or plan is None else explain(plan, job)
    return PlanView(
        task=job.task,
        mode=job.mode,
        model=job.model,
        width=job.width,
        height=job.height,
        num_images=job.num_images,
        prompt_tokens=None if checked.counts is None else checked.counts.prompt,
        negative_prompt_tokens=None if checked.counts is None else checked.counts.negative,
        runs=runs and overtime is None,
        reason=_reason(best) if problem is None else problem.message,
        field=None if problem is None else problem.field,
        worker=best.worker.id if best is not None and runs and overtime is None else None,
        warm=best is not None and job.model in best.worker.warm,
        placement=plan and plan.placements,
        peak_bytes=plan and plan.peak_bytes,
        plan=plan,
        run_seconds=run_seconds,
        estimated_seconds=None if run_seconds is None else run_seconds + (plan.extra_seconds if plan else 0.0),
        workers=[_view_worker(worker, job.model) for worker in workers],
    )


def _without_workers(view: PlanView) -> PlanView:
    """What a caller sees who is not an admin: whether and how the request runs, not which workers there are."""
    hidden: dict[str, object] = {"worker": None, "plan": None, "workers": []}
    if view.runs and view.plan is not None:  # the plan's reason names the worker's memory
        hidden["reason"] = view.plan.name
    return view.model_copy(update=hidden)


def _reason(best: Feasibility | None) -> str:
    if best is None:
        return "no worker is running; the job would wait for one"
    if best.plan is None:
        return "the worker has not reported its memory yet"
    return f"{best.plan.name}: {best.plan.reason}"


def _view_worker(feasibility: Feasibility, model: str) -> FeasibilityView:
    report, plan = feasibility.worker, feasibility.plan
    return FeasibilityView(
        worker=report.id,
        runs=feasibility.runs,
        warm=model in report.warm,
        plan=plan and plan.name,
        peak_bytes=plan and plan.peak_bytes,
        budget_bytes=report.budget_bytes if plan is None else plan.budget_bytes,
        reason=plan and plan.reason,
    )
