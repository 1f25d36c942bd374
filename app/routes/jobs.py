"""Jobs: list them, look at one, cancel it, fetch its images, forget it."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Response

from app.dependencies import OwnJob, TheCaller, TheLinks, TheQueue, TheStorage
from app.display import display
from app.openapi import problems
from app.queries import TheFilter, ThePage
from contracts import listing
from contracts.errors import NotFound, Unavailable
from contracts.records import ImageRecord, JobRecord, JobState
from contracts.retention import remove_images
from contracts.views import JobView, ListView, view_job

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.get("/jobs", responses=problems(422, 503))
def list_jobs(
    wanted: TheFilter, page: ThePage, queue: TheQueue, caller: TheCaller, links: TheLinks
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
    return display(record, queue, storage, links)


@router.post("/jobs/{id}/cancel", responses=problems(404, 409, 410, 503))
def cancel_job(record: OwnJob, queue: TheQueue, links: TheLinks) -> JobView:
    """Cancel a job: at once where it waits, within one denoising step where it runs. Idempotent."""
    return view_job(queue.cancel(record.id), links)


@router.delete("/jobs/{id}", status_code=204, responses=problems(404, 409, 410, 503))
def delete_job(record: OwnJob, queue: TheQueue, storage: TheStorage) -> None:
    """Forget a job that has ended, and its images."""
    queue.delete(record.id)
    with suppress(Unavailable):  # the books are closed; the sweep removes what is left
        remove_images(storage, record.id)


_BYTES = {"type": "string", "format": "binary"}


@router.get(
    "/jobs/{id}/images/{n:int}",
    response_class=Response,
    responses={
        200: {"content": {f"image/{name}": {"schema": _BYTES} for name in ("png", "jpeg", "webp")}},
        304: {"description": "The client has these bytes already"},
        **problems(404, 410, 503),
    },
)
def show_image(
    record: OwnJob, n: int, storage: TheStorage, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """The bytes of a completed job's image, counted from 0. They never change."""
    image = _image_of(record, n)
    headers = {"ETag": f'"{image.sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
    if if_none_match is not None and _names(if_none_match, image.sha256):
        return Response(status_code=304, headers=headers)
    try:
        data = storage.read(image.key)
    except NotFound:
        raise NotFound("image", f"{record.id}/{n}") from None
    headers["X-Content-Type-Options"] = "nosniff"
    return Response(data, media_type=f"image/{image.format}", headers=headers)


def _image_of(record: JobRecord, number: int) -> ImageRecord:
    if record.state is not JobState.COMPLETED or number >= len(record.images):
        raise NotFound("image", f"{record.id}/{number}")
    return record.images[number]


def _names(if_none_match: str, sha256: str) -> bool:
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in if_none_match.split(",")]
    return "*" in tags or sha256 in tags
