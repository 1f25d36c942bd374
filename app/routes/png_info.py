"""Routes that read a request from an image: one of a job, or an uploaded file. They queue and store nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path

from app.dependencies.access import OwnJobDep, PrincipalDep, VisibleCatalogueDep
from app.dependencies.bodies import ImageBodyDep
from app.dependencies.services import ServicesDep
from app.inputs.texts.files import read_texts
from app.openapi.bodies import upload_body
from app.openapi.routes import problems
from app.png_info.darkroom import draft_of
from app.png_info.reading import read_request
from app.png_info.view import ImageParameters
from app.routes.images import image_of
from app.services import Services
from contracts.errors import Conflict
from contracts.jobs.record_reader import UnreadableJob
from contracts.requests.parameters import JobParameters
from contracts.uploads.images import recall

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.get("/jobs/{id}/images/{n:int}/parameters", responses=problems(404, 409, 410, 503))
def show_image_parameters(
    record: OwnJobDep,
    n: Annotated[int, Path(description="Number of the image, counted from 0.")],
    services: ServicesDep,
    principal: PrincipalDep,
    catalogue: VisibleCatalogueDep,
) -> ImageParameters:
    """Show the request that makes image `n` of a completed job again, and the job's other images."""
    image_of(record, n)  # 404 where there is none
    if isinstance(record, UnreadableJob):
        raise Conflict(f"the parameters of job {record.id} cannot be read: another release wrote its record")
    if not isinstance(record.parameters, JobParameters):
        raise Conflict(
            f"job {record.id} is of the task {record.parameters.task}, whose images no prompt makes; "
            f"POST /v1/jobs/{record.id}/rerun makes them again"
        )
    return draft_of(record.parameters, n, _uploads_of(services, principal.owner)).settle(catalogue)


@router.post("/png-info", openapi_extra=upload_body(), responses=problems(400, 403, 408, 413, 415, 422, 429, 503))
def read_png_info(
    body: ImageBodyDep, services: ServicesDep, principal: PrincipalDep, catalogue: VisibleCatalogueDep
) -> ImageParameters:
    """Read a request from a PNG, JPEG or WebP file of this service, A1111's web UI, InvokeAI or Draw Things.

    What the file says and a request cannot is named. Nothing is stored, and no pixel is read.
    """
    if len(body) > services.decoder.max_bytes:
        raise services.decoder.too_many_bytes("file")
    return read_request(read_texts(body, "file"), catalogue, _uploads_of(services, principal.owner))


def _uploads_of(services: Services, owner: str) -> Callable[[str], str | None]:
    """Return a function that names an owner's upload by its SHA-256."""

    def find(sha256: str) -> str | None:
        upload = recall(services.queue.connection, owner, f"upload:{sha256}")
        return None if upload is None else upload.id

    return find
