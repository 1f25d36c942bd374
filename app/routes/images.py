"""The route of a job's images. A signed link gives access to one image without an API key."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import RedirectResponse

from app.dependencies.access import ImageJobDep
from app.dependencies.services import ServicesDep
from app.openapi.routes import image_answer, problems
from app.services import Services
from contracts.errors import NotFound
from contracts.jobs.records import ImageRecord, JobRecord, JobState
from contracts.safety import flagged_key

router = APIRouter(prefix="/v1", tags=["jobs"])

#: Validity of a bucket's signed link; clients follow a redirect immediately.
_REDIRECT_SECONDS = 300


@router.get(
    "/jobs/{id}/images/{n:int}",
    response_class=Response,
    openapi_extra={"security": [{"HTTPBearer": []}, {}]},
    responses={
        **image_answer("The image file"),
        304: {"description": "Not modified: the client has this image already"},
        307: {
            "description": "Redirect to the image in the bucket, by a link that is valid for a few minutes; "
            "only with DARKROOM_API_REDIRECT_IMAGES"
        },
        **problems(401, 403, 404, 410, 421, 422, 503),
    },
)
def show_image(
    record: ImageJobDep,
    n: Annotated[int, Path(description="Number of the image, counted from 0.")],
    services: ServicesDep,
    expires: Annotated[str | None, Query(description="Expiry time of a signed link, in Unix seconds.")] = None,
    signature: Annotated[str | None, Query(description="Signature of a signed link.")] = None,
    if_none_match: Annotated[
        str | None, Header(description="ETags of copies that the client has, as in RFC 9110; a match is a 304.")
    ] = None,
) -> Response:
    """Download image `n` of a completed job, counted from 0. An image never changes."""
    del expires, signature  # declared for the OpenAPI document; ImageJobDep checks the whole query
    image = image_of(record, n)
    headers = {"ETag": f'"{image.sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
    if if_none_match is not None and _names(if_none_match, image.sha256):
        return Response(status_code=304, headers=headers)
    link = services.storage.sign(image.key, _REDIRECT_SECONDS) if services.settings.redirect_images else None
    if link is not None:
        return RedirectResponse(link, status_code=307, headers={"Cache-Control": "no-store"})
    try:
        data = services.storage.read(image.key)
    except NotFound:
        raise NotFound("image", f"{record.id}/{n}") from None
    headers["X-Content-Type-Options"] = "nosniff"
    return Response(data, media_type=f"image/{image.format}", headers=headers)


def image_of(record: JobRecord, number: int) -> ImageRecord:
    """Return an image of a completed job; raises NotFound where it has none with this number."""
    if record.state is not JobState.COMPLETED or number >= len(record.images):
        raise NotFound("image", f"{record.id}/{number}")
    return record.images[number]


def flagged_image(id: str, number: int, services: Services) -> Response:
    """A job's flagged image as it was generated; raises NotFound where there is none."""
    try:
        data = services.storage.read(flagged_key(id, number))
    except NotFound:
        raise NotFound("flagged image", f"{id}/{number}") from None
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(data, media_type="image/png", headers=headers)


def _names(if_none_match: str, sha256: str) -> bool:
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in if_none_match.split(",")]
    return "*" in tags or sha256 in tags
