"""Uploads: pictures sent ahead of the requests that name them."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.dependencies.calls import PictureBody, TheRepeats
from app.dependencies.services import TheDecoder, ThePrincipal, TheQueue, TheRetention, TheSettings, TheStorage
from app.inputs.reader import store_image
from app.openapi.routes import MAKING, problems, upload_body
from contracts.errors import Gone
from contracts.uploads.images import Upload, recall, remember

router = APIRouter(prefix="/v1", tags=["uploads"])


@router.post(
    "/uploads",
    status_code=201,
    openapi_extra=upload_body(),
    responses={
        200: {"model": Upload, "description": "It was here; its time begins anew, unless this call is a replay"},
        **problems(*MAKING),
    },
)
def upload(
    raw: PictureBody,
    caller: ThePrincipal,
    decoder: TheDecoder,
    storage: TheStorage,
    retention: TheRetention,
    queue: TheQueue,
    settings: TheSettings,
    repeats: TheRepeats,
    response: Response,
) -> Upload:
    """Check and keep a picture, sent as raw bytes or as the field `file` of a form."""
    response.status_code = 200

    def keep() -> Upload:
        picture = decoder.decode(raw, "file")
        store_image(storage, retention, picture, settings.upload_ttl_seconds)
        kept, is_new = remember(queue, caller.owner, picture, settings.upload_ttl_seconds)
        response.status_code = 201 if is_new else 200
        return kept

    def find(id: str) -> Upload:
        known = recall(queue, caller.owner, id)
        if known is None:
            raise Gone("upload", id, caller.owner)
        return known

    return repeats.make_once(raw, response, keep, lambda kept: kept.id, find)
