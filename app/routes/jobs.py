"""Jobs: list them, look at one, cancel it, forget it."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter, Response

from app.dependencies.calls import TheRepeats
from app.dependencies.queries import TheFilter, ThePage
from app.dependencies.services import OwnJob, TheLinks, ThePrincipal, TheQueue, TheStorage
from app.job_response import job_response
from app.openapi.routes import problems
from contracts.errors import Unavailable
from contracts.job_view import JobView, ListView, view_job
from contracts.queue import listing
from contracts.queue.records import JobRecord
from contracts.uploads.retention import remove_images

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.get("/jobs", responses=problems(422, 503))
def list_jobs(
    wanted: TheFilter, page: ThePage, queue: TheQueue, caller: ThePrincipal, links: TheLinks
) -> ListView[JobView]:
    """Your jobs, newest first, without their places in the queue; a rare filter may give a short page."""
    found = listing.list_jobs(queue, caller.owner, wanted, page.limit, page.after)
    return ListView(
        data=[view_job(record, links) for record in found.jobs],
        has_more=found.next is not None,
        next_cursor=None if found.next is None else found.next.write(),
    )


@router.get("/jobs/{id}", responses=problems(404, 410, 503))
def show_job(record: OwnJob, queue: TheQueue, storage: TheStorage, links: TheLinks) -> JobView:
    """The job as it is now."""
    return job_response(record, queue, storage, links)


@router.post("/jobs/{id}/cancel", responses=problems(404, 409, 410, 422, 503))
def cancel_job(
    record: OwnJob, queue: TheQueue, links: TheLinks, repeats: TheRepeats, response: Response
) -> JobView:
    """Cancel a job: at once where it waits, within one denoising step where it runs. Idempotent."""

    def cancel() -> JobRecord:
        return queue.cancel(record.id)

    return view_job(repeats.make_once(b"", response, cancel, lambda job: job.id, queue.fetch), links)


@router.delete("/jobs/{id}", status_code=204, responses=problems(404, 409, 410, 503))
def delete_job(record: OwnJob, queue: TheQueue, storage: TheStorage) -> None:
    """Forget a job that has ended, and its images."""
    queue.delete(record.id)
    with suppress(Unavailable):  # the books are closed; the sweep removes what is left
        remove_images(storage, record.id)
