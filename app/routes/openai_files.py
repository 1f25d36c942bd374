"""OpenAI's files: requests of batches, which are uploaded, and their results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from app.dependencies.access import GENERATE_ONLY, LIST_LIMITED, PrincipalDep
from app.dependencies.bodies import JsonLinesFileDep
from app.dependencies.queries import NULL_IS_ABSENT, null_is_default_limit, null_means
from app.dependencies.services import ServicesDep
from app.dependencies.submissions import IdempotentCallDep
from app.dialects.openai.batches.schema import (
    MAX_SECONDS,
    MIN_SECONDS,
    DeletedFile,
    FileList,
    FileOrder,
    FileView,
    Purpose,
    view_file,
)
from app.openapi.bodies import json_lines_body
from app.openapi.routes import MAKING, problems
from contracts.batches.files import StoredFile
from contracts.errors import FieldProblem, Gone, InvalidRequest, NotFound
from contracts.uploads.owner_bytes import ByteLimit

router = APIRouter(prefix="/v1/files", tags=["openai"])

_FileId = Annotated[str, Path(description="Id of the file.")]
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_MAX_NAME = 255


@router.post("", name="create_file", openapi_extra=json_lines_body(), responses=problems(*MAKING))
async def create_file(
    body: JsonLinesFileDep,
    services: ServicesDep,
    principal: PrincipalDep,
    call: IdempotentCallDep,
    response: Response,
) -> FileView:
    """Upload a file of requests, JSON Lines, for a batch."""
    settings = services.settings
    seconds = _read_fields(body.fields, settings.upload_ttl_seconds)
    name = FilePath(body.filename.replace("\\", "/")).name[:_MAX_NAME] or "file.jsonl"

    def create(_: object) -> StoredFile:
        services.disk_space.require(body.path.stat().st_size)
        limit = ByteLimit(principal.owner, settings.max_owner_bytes)
        return services.owner_bytes.run(
            principal.owner,
            lambda: services.files.add(body.path, principal.owner, name, "batch", seconds, limit),
        )

    def find(id: str) -> StoredFile:
        try:
            return services.files.fetch(id, principal.owner)
        except NotFound:
            raise Gone("file", id, principal.owner) from None

    def run() -> StoredFile:
        with body.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        identity = f"{digest} {name} {sorted(body.fields.items())}".encode()
        return call.run(identity, response, create, find, lambda file: file.id)

    return view_file(await run_in_threadpool(run))


@router.get("", name="list_files", dependencies=[LIST_LIMITED], responses=problems(429, 503))
def list_files(
    services: ServicesDep,
    principal: PrincipalDep,
    purpose: Annotated[
        Purpose | None, Query(description="Only files of this purpose. Default: any."), NULL_IS_ABSENT
    ] = None,
    limit: Annotated[
        int,
        Query(ge=1, le=10_000, description="Maximum number of files in the answer."),
        null_is_default_limit(10_000, 10_000),
    ] = 10_000,
    order: Annotated[
        FileOrder, Query(description="`desc`: newest first; `asc`: oldest first."), null_means("desc", FileOrder)
    ] = "desc",
    after: Annotated[
        str | None, Query(description="`last_id` of the previous page. Default: the first page."), NULL_IS_ABSENT
    ] = None,
) -> FileList:
    """List your files: those uploaded for batches, and their results."""
    page = services.files.find_page(principal.owner, purpose, after, limit, newest_first=order == "desc")
    views = [view_file(file) for file in page.entries]
    first, last = (views[0].id, views[-1].id) if views else (None, None)
    return FileList(data=views, first_id=first, last_id=last, has_more=page.has_more)


@router.get("/{id}", name="show_file", responses=problems(404, 503))
def show_file(id: _FileId, services: ServicesDep, principal: PrincipalDep) -> FileView:
    """Show a file of yours."""
    return view_file(services.files.fetch(id, principal.owner))


@router.delete("/{id}", name="delete_file", dependencies=[GENERATE_ONLY], responses=problems(403, 404, 429, 503))
def delete_file(id: _FileId, services: ServicesDep, principal: PrincipalDep) -> DeletedFile:
    """Delete a file of yours. A batch that has not ended goes on with it."""
    services.files.delete(id, principal.owner)
    return DeletedFile(id=id)


@router.get(
    "/{id}/content",
    name="download_file",
    response_class=Response,
    responses={
        200: {
            "description": "The file",
            "content": {
                "application/jsonl": {
                    "schema": {"type": "string", "format": "binary"},
                    "example": '{"custom_id": "one", "response": {"status_code": 200}, "error": null}',
                }
            },
        },
        **problems(404, 503),
    },
)
def download_file(id: _FileId, services: ServicesDep, principal: PrincipalDep) -> Response:
    """Download a file of yours."""
    file = services.files.fetch(id, principal.owner)
    if not services.storage.exists(file.key):
        raise NotFound("file", id)
    headers = {"Content-Length": str(file.size_bytes), "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(services.files.chunks(file), media_type="application/jsonl", headers=headers)


def _read_fields(fields: Mapping[str, str], default_seconds: int) -> int:
    """Check the fields of the form beside its file; returns for how long the file is kept."""
    problems = []
    for name in sorted(fields.keys() - {"purpose", _ANCHOR, _SECONDS}):
        message = "is not a field of this form; remove it"
        problems.append(FieldProblem(name, message, ["file", "purpose", _ANCHOR, _SECONDS]))
    if fields.get("purpose") != "batch":
        got = repr(fields["purpose"][:80]) if "purpose" in fields else "nothing"
        problems.append(
            FieldProblem("purpose", f"must be batch, got {got}: no other files are used here", ["batch"])
        )
    if fields.get(_ANCHOR, "created_at") != "created_at":
        problems.append(FieldProblem(_ANCHOR, "must be created_at", ["created_at"]))
    text, seconds = fields.get(_SECONDS), default_seconds
    if text is not None:
        seconds = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            rule = f"{MIN_SECONDS}–{MAX_SECONDS}"
            problems.append(
                FieldProblem(_SECONDS, f"must be a number of seconds, {rule}, got {text[:20]!r}", rule)
            )
    if problems:
        raise InvalidRequest(problems)
    return seconds
