"""The route of uploads: images sent ahead of the requests that use them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.dependencies.access import PrincipalDep
from app.dependencies.bodies import ImageBodyDep
from app.dependencies.queries import null_means
from app.dependencies.services import ServicesDep
from app.dependencies.submissions import IdempotentCallDep
from app.openapi.bodies import upload_body
from app.openapi.routes import MAKING, problems
from app.submission.uploads import store_upload
from contracts.errors import Gone
from contracts.uploads.images import Upload, recall

router = APIRouter(prefix="/v1", tags=["uploads"])


@router.post(
    "/uploads",
    status_code=201,
    openapi_extra=upload_body(),
    responses={
        200: {
            "model": Upload,
            "description": "Uploaded before; it now expires later, unless this call is a replay",
        },
        **problems(*MAKING),
    },
)
def create_upload(
    body: ImageBodyDep,
    services: ServicesDep,
    principal: PrincipalDep,
    call: IdempotentCallDep,
    response: Response,
    mask: Annotated[
        bool,
        Query(
            description="Whether the image is a mask. It is then stored as requests read it, in black and white, "
            "and `sha256` is of that, as in receipts. Masks may be uploaded without this, too. Default: `false`."
        ),
        null_means(default=False, kind=bool),
    ] = False,
) -> Upload:
    """Upload an image, as raw bytes or as the field `file` of a form; requests name it by the `id` returned."""
    response.status_code = 200

    def create(_: object) -> Upload:
        upload, is_new = store_upload(services, principal.owner, body, "file", is_mask=mask)
        response.status_code = 201 if is_new else 200
        return upload

    def find(id: str) -> Upload:
        upload = recall(services.queue.connection, principal.owner, id)
        if upload is None:
            raise Gone("upload", id, principal.owner)
        return upload

    return call.run(b"mask:" + body if mask else body, response, create, find, lambda upload: upload.id)
