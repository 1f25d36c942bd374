"""Routes that create jobs: one per task, one for any task, and one that runs a job again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response

from app.dependencies.access import OwnJobDep
from app.dependencies.bodies import JsonBodyDep
from app.dependencies.submissions import WaitingSubmissionDep
from app.openapi.bodies import plan_body, request_body, rerun_body
from app.openapi.routes import MAKING, accepted, problems
from app.parsing.json_bodies import check_json
from app.parsing.requests import read, read_any, task_of
from app.submission.checks import Draft, JobDraft
from app.submission.plain.tasks import PLAIN_TASKS, PlainTask
from app.submission.rerun import rerun_draft
from contracts.requests.plain.requests import PLAIN_REQUESTS
from contracts.requests.schema import REQUESTS, DeliveryFields, JobRequest
from contracts.views.job import JobView

router = APIRouter(prefix="/v1", tags=["jobs"])


def _submit(kind: type[JobRequest]) -> Callable[..., Awaitable[JobView]]:
    """The route of one task."""

    async def submit(body: JsonBodyDep, submission: WaitingSubmissionDep, response: Response) -> JobView:
        return await submission.answer(body, lambda: JobDraft(read(kind, body.raw)), response)

    return submit


def _submit_plain(task: PlainTask) -> Callable[..., Awaitable[JobView]]:
    """The route of a task that runs on no diffusion model."""

    async def submit(body: JsonBodyDep, submission: WaitingSubmissionDep, response: Response) -> JobView:
        return await submission.answer(body, lambda: task.draft(read(task.request, body.raw), {}), response)

    return submit


_ROUTES: dict[str, tuple[type[DeliveryFields], Callable[..., Awaitable[JobView]]]] = {
    **{task: (kind, _submit(kind)) for task, kind in REQUESTS.items()},
    **{name: (task.request, _submit_plain(task)) for name, task in PLAIN_TASKS.items() if not task.has_own_route},
}
for _task, (_kind, _endpoint) in _ROUTES.items():
    router.add_api_route(
        f"/{_task}",
        _endpoint,
        methods=["POST"],
        status_code=202,
        name=f"submit_{_task}",
        description=f"Create a job of the task `{_task}`: {_kind.__doc__}",
        openapi_extra=request_body(_kind),
        responses={**accepted(JobView), **problems(*MAKING)},
    )


@router.post(
    "/jobs",
    status_code=202,
    name="submit_job",
    openapi_extra=plan_body(PLAIN_REQUESTS.values()),
    responses={**accepted(JobView), **problems(*MAKING)},
)
async def submit_job(body: JsonBodyDep, submission: WaitingSubmissionDep, response: Response) -> JobView:
    """Create a job of any task: `{"task": …, …}` with the fields of the task's own route."""
    return await submission.answer(body, lambda: _draft_of_any(body.raw), response)


def _draft_of_any(raw: bytes) -> Draft:
    check_json(raw)
    task = task_of(raw)
    if task in PLAIN_TASKS:
        return PLAIN_TASKS[task].draft(read(PLAIN_TASKS[task].request, raw), {})
    return JobDraft(read_any(raw, tuple(PLAIN_TASKS)))


@router.post(
    "/jobs/{id}/rerun",
    status_code=202,
    openapi_extra=rerun_body(),
    responses={**accepted(JobView), **problems(*MAKING, 404)},
)
async def rerun_job(
    record: OwnJobDep, body: JsonBodyDep, submission: WaitingSubmissionDep, response: Response
) -> JobView:
    """Create a job with the parameters of this one, the seed included.

    Fields of the request body replace the job's own; null resets a field to its default.
    """
    storage = submission.services.storage
    return await submission.answer(body, lambda: rerun_draft(record, body.raw, storage), response)
