"""Submit a job of each task, or the same again. What is done with it is `app.acceptance`'s matter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response

from app.dependencies.calls import JsonBody, TheSubmission
from app.dependencies.services import OwnJob, TheStorage
from app.openapi.routes import MAKING, accepted, problems, request_body, rerun_body
from app.parsing.requests import parse
from app.submission.rerun import rerun_request
from app.submission.submit import Order
from contracts.job_view import JobView
from contracts.requests.schema import REQUESTS, JobRequest

router = APIRouter(prefix="/v1", tags=["jobs"])


def _submission(kind: type[JobRequest]) -> Callable[..., Awaitable[JobView]]:
    """The route of one task."""

    async def submit(raw: JsonBody, acceptance: TheSubmission, response: Response) -> JobView:
        return await acceptance.answer(lambda: Order(parse(kind, raw)), response)

    return submit


for _task, _kind in REQUESTS.items():
    router.add_api_route(
        f"/{_task}",
        _submission(_kind),
        methods=["POST"],
        status_code=202,
        name=f"submit_{_task}",
        summary=f"Queue a {_task} job",
        description=_kind.__doc__,
        openapi_extra=request_body(_kind),
        responses={**accepted(JobView), **problems(*MAKING)},
    )


@router.post(
    "/jobs/{id}/rerun",
    status_code=202,
    openapi_extra=rerun_body(),
    responses={**accepted(JobView), **problems(*MAKING, 404)},
)
async def rerun_job(
    record: OwnJob, raw: JsonBody, acceptance: TheSubmission, storage: TheStorage, response: Response
) -> JobView:
    """Make a job's images again, seed and all; fields of the body replace the job's own, null takes one away."""
    return await acceptance.answer(lambda: rerun_request(record, raw, storage), response)
