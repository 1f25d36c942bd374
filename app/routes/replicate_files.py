"""Replicate's files: images that its clients upload before the predictions that use them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.dependencies.access import GENERATE_ONLY, LIST_LIMITED, PrincipalDep
from app.dependencies.bodies import ContentFileDep
from app.dependencies.queries import PageDep
from app.dependencies.services import LinksDep, ServicesDep
from app.dependencies.submissions import IdempotentCallDep
from app.dialects.replicate.schema import ReplicateFile, ReplicateFileList
from app.openapi.bodies import content_file_body
from app.openapi.routes import MAKING, problems
from app.services import Services
from app.submission.uploads import store_upload
from contracts.errors import Gone, NotFound
from contracts.queue.listing import Cursor
from contracts.uploads.images import Upload, forget, list_uploads, recall
from contracts.views.links import Links

router = APIRouter(prefix="/replicate/v1/files", tags=["replicate"])

#: How long a file stays while its size is read.
_READ_SECONDS = 60
_FileId = Annotated[str, Path(description="Id of the file.")]


@router.post(
    "",
    name="create_replicate_file",
    status_code=201,
    openapi_extra=content_file_body(),
    responses=problems(*MAKING),
)
def create_replicate_file(
    body: ContentFileDep,
    services: ServicesDep,
    principal: PrincipalDep,
    links: LinksDep,
    call: IdempotentCallDep,
    response: Response,
) -> ReplicateFile:
    """Upload an image that inputs of predictions may name by its URL. It is the same as an upload."""

    def create(_: object) -> Upload:
        return store_upload(services, principal.owner, body, "content")[0]

    def find(id: str) -> Upload:
        upload = recall(services.queue.connection, principal.owner, id)
        if upload is None:
            raise Gone("file", id, principal.owner)
        return upload

    return _view(call.run(body, response, create, find, lambda upload: upload.id), services, links)


@router.get("", name="list_replicate_files", dependencies=[LIST_LIMITED], responses=problems(422, 429, 503))
def list_replicate_files(
    page: PageDep, services: ServicesDep, principal: PrincipalDep, links: LinksDep
) -> ReplicateFileList:
    """List your files, the newest first; images that were uploaded by the native API are among them."""
    before = None if page.after is None else page.after.created_at
    uploads, rest = list_uploads(services.queue.connection, principal.owner, page.limit, before)
    cursor = None if rest is None else f"?limit={page.limit}&cursor={Cursor(rest, '').write()}"
    return ReplicateFileList(
        next=None if cursor is None else f"{links.base}{router.prefix}{cursor}",
        results=[_view(upload, services, links) for upload in uploads],
    )


@router.get("/{id}", name="show_replicate_file", responses=problems(404, 503))
def show_replicate_file(
    id: _FileId, services: ServicesDep, principal: PrincipalDep, links: LinksDep
) -> ReplicateFile:
    """Show a file of yours."""
    upload = recall(services.queue.connection, principal.owner, f"upload:{id}")
    if upload is None:
        raise NotFound("file", id[:200])
    return _view(upload, services, links)


@router.delete(
    "/{id}",
    name="delete_replicate_file",
    status_code=204,
    dependencies=[GENERATE_ONLY],
    responses=problems(403, 404, 429, 503),
)
def delete_replicate_file(id: _FileId, services: ServicesDep, principal: PrincipalDep) -> None:
    """Delete a file of yours: requests can no longer name it. Jobs that use it keep it until they have ended."""
    if not forget(services.queue.connection, principal.owner, f"upload:{id}"):
        raise NotFound("file", id[:200])


def _view(upload: Upload, services: Services, links: Links) -> ReplicateFile:
    return ReplicateFile(
        id=upload.sha256,
        name=f"{upload.sha256[:12]}.{upload.format}",
        content_type=f"image/{upload.format}",
        size=_size_of(upload, services),
        etag=upload.sha256,
        checksums={"sha256": upload.sha256},
        metadata={},
        created_at=upload.expires_at - timedelta(seconds=services.settings.upload_ttl_seconds),
        expires_at=upload.expires_at,
        urls={"get": f"{links.base}/replicate/v1/files/{upload.sha256}"},
    )


def _size_of(upload: Upload, services: Services) -> int:
    """Bytes of the stored file, which an older version did not note."""
    if upload.size_bytes is not None:
        return upload.size_bytes
    key = services.retention.retain_existing(upload.sha256, _READ_SECONDS)
    if key is None:
        raise NotFound("file", upload.sha256)
    return len(services.storage.read(key))
