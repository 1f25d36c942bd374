"""Submit a job of each task. What is done with it is `app.acceptance`'s matter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response

from app.acceptance import Order
from app.dependencies import JsonBody, TheAcceptance
from app.openapi import accepted, problems, request_body
from app.requests import parse
from app.views import JobView
from contracts.tasks import REQUESTS, JobRequest

router = APIRouter(prefix="/v1", tags=["jobs"])


def _submission(kind: type[JobRequest]) -> Callable[..., Awaitable[JobView]]:
    """The route of one task."""

    async def submit(raw: JsonBody, acceptance: TheAcceptance, response: Response) -> JobView:
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
        responses={**accepted(JobView), **problems(400, 408, 409, 410, 413, 415, 422, 503)},
    )
