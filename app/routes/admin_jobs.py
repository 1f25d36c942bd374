"""Routes by which operators see and change the jobs of all owners, and may read their prompts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from app.audit import record_action
from app.dependencies.access import ADMINS_ONLY, LIST_LIMITED, PrincipalDep
from app.dependencies.queries import NULL_IS_ABSENT, FilterDep, IncludeReceiptsDep, PageDep
from app.dependencies.services import LinksDep, ServicesDep
from app.job_response import job_response
from app.openapi.routes import image_answer, problems
from app.routes.images import flagged_image
from contracts.errors import NotFound
from contracts.jobs.records import JobRecord
from contracts.queue import listing
from contracts.requests.schema import ChosenPriority, Priority
from contracts.safety import flagged_key
from contracts.views.job import JobView, ListedJob, view_job
from contracts.views.links import Links
from contracts.views.lists import ListView

router = APIRouter(
    prefix="/v1/admin", tags=["admin"], dependencies=[ADMINS_ONLY], responses=problems(403, 404, 429, 503)
)


class AdminListedJob(ListedJob):
    """A job of any owner in a list, without its prompt."""

    owner: str = Field(description="Owner of the job.")
    api_key: str = Field(
        description="Id of the API key that sent it; `anonymous` without one, empty where it is not known."
    )
    priority: Priority = Field(description="Priority of the job.")


class AdminJob(JobView):
    """A job of any owner, with what its request asked for."""

    owner: str = Field(description="Owner of the job.")
    api_key: str = Field(
        description="Id of the API key that sent it; `anonymous` without one, empty where it is not known."
    )
    priority: Priority = Field(description="Priority of the job.")
    parameters: dict[str, Any] = Field(description="All parameters of the job, the prompts included.")


class AdminJobList(ListView[AdminListedJob]):
    """A page of all owners' jobs, newest first."""


@router.get("/jobs", dependencies=[LIST_LIMITED], responses=problems(422))
def list_all_jobs(
    filters: FilterDep,
    page: PageDep,
    with_receipt: IncludeReceiptsDep,
    services: ServicesDep,
    links: LinksDep,
    owner: Annotated[
        str | None, Query(max_length=64, description="Only jobs of this owner. Default: any."), NULL_IS_ABSENT
    ] = None,
    priority: Annotated[
        Priority | None, Query(description="Only jobs of this priority. Default: any."), NULL_IS_ABSENT
    ] = None,
) -> AdminJobList:
    """List the jobs of all owners, newest first, without their prompts; pages are as those of `GET /v1/jobs`."""
    wanted = listing.Filter(filters.status, filters.model, filters.task, priority, filters.metadata)
    found = listing.list_jobs(services.queue, owner, wanted, page.limit, page.after)
    return AdminJobList(
        data=[
            AdminListedJob.model_construct(
                **dict(ListedJob.of(_shown(record, links), with_receipt=with_receipt)), **_sender(record)
            )
            for record in found.jobs
        ],
        has_more=found.next is not None,
        next_cursor=None if found.next is None else found.next.write(),
    )


_JobId = Annotated[str, Path(description="Id of the job.")]
_ImageNumber = Annotated[int, Path(ge=0, le=99, description="Number of the image, counted from 0.")]


@router.get("/jobs/{id}", responses=problems(410))
def show_any_job(id: _JobId, services: ServicesDep, principal: PrincipalDep, links: LinksDep) -> AdminJob:
    """Show a job of any owner as it is now, with its prompt. The log says who looked."""
    view = _view(services.queue.fetch(id), services, links)
    record_action(principal, "show job", job_id=id)
    return view


@router.get(
    "/jobs/{id}/flagged/{n:int}",
    response_class=Response,
    responses={**image_answer("The image as PNG"), **problems(410)},
)
def show_flagged_image(id: _JobId, n: _ImageNumber, services: ServicesDep, principal: PrincipalDep) -> Response:
    """Show flagged image `n` as it was generated; clients got a blurred one, or none. The log says who looked."""
    services.queue.fetch(id)
    answer = flagged_image(id, n, services)
    record_action(principal, "show flagged image", job_id=id)
    return answer


@router.post("/jobs/{id}/flagged/{n:int}/release", responses=problems(409, 410))
def release_flagged_image(
    id: _JobId, n: _ImageNumber, services: ServicesDep, principal: PrincipalDep, links: LinksDep
) -> AdminJob:
    """Give the job's owner flagged image `n` as it was generated: the check was wrong. Idempotent.

    The job's `links` name it from then on; its other files stay as they are. The log says who released it.
    """
    services.queue.fetch(id)
    if not services.storage.exists(flagged_key(id, n)):
        raise NotFound("flagged image", f"{id}/{n}")
    record = services.operations.release_flagged(id, n)
    record_action(principal, "release flagged image", job_id=id, image=n)
    return _view(record, services, links)


@router.post("/jobs/{id}/cancel", responses=problems(409, 410))
def cancel_any_job(id: _JobId, services: ServicesDep, principal: PrincipalDep, links: LinksDep) -> AdminJob:
    """Cancel a job of any owner: at once while it waits, within one denoising step while it runs. Idempotent."""
    record = services.queue.cancel(id)
    record_action(principal, "cancel job", job_id=id)
    return _view(record, services, links)


@router.post("/jobs/{id}/requeue", responses=problems(409, 410))
def requeue_job(id: _JobId, services: ServicesDep, principal: PrincipalDep, links: LinksDep) -> AdminJob:
    """Put a failed job back into its queue under its id, with all its attempts and without its deadline."""
    record = services.operations.requeue(id)
    record_action(principal, "requeue job", job_id=id)
    return _view(record, services, links)


@router.post("/jobs/{id}/priority", responses=problems(409, 410, 422))
def change_priority(
    id: _JobId,
    priority: Annotated[ChosenPriority, Query(description="The new priority.")],
    services: ServicesDep,
    principal: PrincipalDep,
    links: LinksDep,
) -> AdminJob:
    """Give a waiting job another priority, whatever its key allows; it goes behind its owner's jobs of it."""
    record = services.operations.change_priority(id, priority)
    record_action(principal, "change priority", job_id=id, priority=priority.value)
    return _view(record, services, links)


def _shown(record: JobRecord, links: Links) -> JobView:
    """The view of a job with links that an operator can follow."""
    view = view_job(record, links)
    view.links = _links_of(record, links)
    return view


def _view(record: JobRecord, services: ServicesDep, links: Links) -> AdminJob:
    view = job_response(record, services.queue, services.storage, links)
    view.links = _links_of(record, links)
    parameters = record.parameters.model_dump(mode="json", exclude_none=True)
    return AdminJob.model_construct(**dict(view), **_sender(record), parameters=parameters)


def _links_of(record: JobRecord, links: Links) -> dict[str, str]:
    own = f"{links.base}/v1/admin/jobs/{record.id}"
    return {"self": own, "events": links.events(record.id)} | (
        {} if record.state.is_final else {"cancel": f"{own}/cancel"}
    )


def _sender(record: JobRecord) -> dict[str, Any]:
    return {"owner": record.owner, "api_key": record.api_key, "priority": record.priority}
