"""Routes that list, show, cancel and delete jobs, and show their kept latents and released images."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.dependencies.access import GENERATE_ONLY, LIST_LIMITED, OwnJobDep, PrincipalDep
from app.dependencies.queries import FilterDep, IncludeReceiptsDep, PageDep
from app.dependencies.services import LinksDep, ServicesDep
from app.dependencies.submissions import IdempotentCallDep
from app.job_response import job_response
from app.openapi.routes import file_answer, image_answer, problems
from app.routes.images import flagged_image
from contracts.errors import NotFound, Unavailable
from contracts.jobs.records import JobRecord, JobState
from contracts.provenance.kept_latents import latents_key
from contracts.queue import listing
from contracts.uploads.retention import remove_images
from contracts.views.job import JobList, JobView, ListedJob, view_job

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.get("/jobs", dependencies=[LIST_LIMITED], responses=problems(422, 429, 503))
def list_jobs(
    filters: FilterDep,
    page: PageDep,
    with_receipt: IncludeReceiptsDep,
    services: ServicesDep,
    principal: PrincipalDep,
    links: LinksDep,
) -> JobList:
    """List your jobs, newest first, without their positions in the queue and, unless asked for, their receipts.

    `metadata.NAME=VALUE`, as often as you like, lists only jobs whose `metadata` has this value under the name.
    A page may be shorter than `limit` when few jobs match the filters; go on while `has_more` is true.
    """
    found = listing.list_jobs(services.queue, principal.owner, filters, page.limit, page.after)
    views = (view_job(record, links) for record in found.jobs)
    return JobList(
        data=[ListedJob.of(view, with_receipt=with_receipt) for view in views],
        has_more=found.next is not None,
        next_cursor=None if found.next is None else found.next.write(),
    )


@router.get("/jobs/{id}", responses=problems(404, 410, 503))
def show_job(record: OwnJobDep, services: ServicesDep, links: LinksDep) -> JobView:
    """Show a job as it is now."""
    services.attendance.release(record)  # the client has come back for it, and knows its id
    return job_response(record, services.queue, services.storage, links)


@router.get(
    "/jobs/{id}/latents",
    response_class=Response,
    responses={**file_answer("The latents, in safetensors"), **problems(404, 410, 503)},
)
def show_latents(record: OwnJobDep, services: ServicesDep) -> Response:
    """Download the latents that a completed job with `keep_latents` has kept: a tensor for each step.

    Tensors `step.001`, `step.002`, … have the shape (images, …) and the data type of the model's latents.
    """
    if record.receipt is None or record.receipt.kept_latents is None:
        raise NotFound("latents", record.id)
    try:
        data = services.storage.read(latents_key(record.id, record.attempts))
    except NotFound:
        raise NotFound("latents", record.id) from None
    headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
    return Response(data, media_type="application/octet-stream", headers=headers)


@router.get(
    "/jobs/{id}/released/{n:int}",
    response_class=Response,
    responses={**image_answer("The image as PNG"), **problems(404, 410, 503)},
)
def show_released_image(
    record: OwnJobDep,
    n: Annotated[int, Path(ge=0, le=99, description="Number of the image, counted from 0.")],
    services: ServicesDep,
) -> Response:
    """Download image `n` as it was generated: a safety check flagged it, and the operator has released it."""
    if n not in record.released:
        raise NotFound("released image", f"{record.id}/{n}")
    return flagged_image(record.id, n, services)


@router.post(
    "/jobs/{id}/cancel", dependencies=[GENERATE_ONLY], responses=problems(403, 404, 409, 410, 422, 429, 503)
)
def cancel_job(
    record: OwnJobDep, services: ServicesDep, links: LinksDep, call: IdempotentCallDep, response: Response
) -> JobView:
    """Cancel a job: immediately while it waits, within one denoising step while it runs. Idempotent."""
    queue = services.queue
    # Only the call that cancels is remembered; the repetitions with other keys would be stored without end.
    is_repeated = record.cancel_requested or record.state is JobState.CANCELLED

    def id_of(job: JobRecord) -> str | None:
        return None if is_repeated else job.id

    job = call.run(b"", response, lambda _: queue.cancel(record.id), queue.fetch, id_of, even_if_full=True)
    return view_job(job, links)


@router.delete(
    "/jobs/{id}",
    status_code=204,
    dependencies=[GENERATE_ONLY],
    responses=problems(403, 404, 409, 410, 429, 503),
)
def delete_job(record: OwnJobDep, services: ServicesDep) -> None:
    """Delete a job that has ended, and its images."""
    services.queue.delete(record.id)
    with suppress(Unavailable):  # the record is gone; the sweep removes files that are left
        remove_images(services.storage, record.id)
