"""OpenAI's batches: files of requests that are run as jobs of the lowest priority in the course of a day."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.dependencies.access import GENERATE_ONLY, LIST_LIMITED, PrincipalDep
from app.dependencies.bodies import JsonBodyDep
from app.dependencies.queries import NULL_IS_ABSENT, null_is_default_limit
from app.dependencies.services import LinksDep, ServicesDep
from app.dependencies.submissions import IdempotentCallDep
from app.dialects.openai.batches.schema import BatchList, BatchRequest, BatchView, view_batch
from app.openapi.bodies import request_body
from app.openapi.routes import MAKING, problems
from app.parsing.requests import parse
from contracts.batches.records import Batch
from contracts.errors import FieldProblem, Gone, InvalidRequest, NotFound

router = APIRouter(prefix="/v1/batches", tags=["openai"])

#: What `completion_window` 24h means.
WINDOW_SECONDS = 86_400
_BatchId = Annotated[str, Path(description="Id of the batch.")]


@router.post(
    "",
    name="create_batch",
    openapi_extra=request_body(BatchRequest),
    responses=problems(*MAKING, 404),
)
def create_batch(
    body: JsonBodyDep,
    services: ServicesDep,
    principal: PrincipalDep,
    links: LinksDep,
    call: IdempotentCallDep,
    response: Response,
) -> BatchView:
    """Run every line of a file as a request. Each gets a line in the files of results."""
    request = parse(BatchRequest, body.raw)

    def create(_: object) -> Batch:
        file = services.files.fetch(request.input_file_id, principal.owner)
        if file.purpose != "batch":
            message = f"must be a file uploaded with purpose batch, got one with purpose {file.purpose}"
            raise InvalidRequest([FieldProblem("input_file_id", message)])
        kept = request.output_expires_after
        batch = Batch(
            id=f"batch_{secrets.token_hex(16)}",
            owner=principal.owner,
            api_key=principal.key_id,
            base=links.base,
            endpoint=request.endpoint,
            completion_window=request.completion_window,
            metadata=request.metadata or {},
            input_file_id=file.id,
            input_key=file.key,
            input_bytes=file.size_bytes,
            output_seconds=services.settings.shared.result_ttl_seconds if kept is None else kept.seconds,
        )
        return services.batches.create(batch, WINDOW_SECONDS)

    def find(id: str) -> Batch:
        try:
            return services.batches.fetch(id, principal.owner)
        except NotFound:
            raise Gone("batch", id, principal.owner) from None

    return view_batch(call.run(body.raw, response, create, find, lambda batch: batch.id))


@router.get("", name="list_batches", dependencies=[LIST_LIMITED], responses=problems(429, 503))
def list_batches(
    services: ServicesDep,
    principal: PrincipalDep,
    limit: Annotated[
        int,
        Query(ge=1, le=100, description="Maximum number of batches in the answer."),
        null_is_default_limit(20, 100),
    ] = 20,
    after: Annotated[
        str | None, Query(description="`last_id` of the previous page. Default: the first page."), NULL_IS_ABSENT
    ] = None,
) -> BatchList:
    """List your batches, newest first."""
    page = services.batches.find_page(principal.owner, after, limit)
    views = [view_batch(batch) for batch in page.entries]
    first, last = (views[0].id, views[-1].id) if views else (None, None)
    return BatchList(data=views, first_id=first, last_id=last, has_more=page.has_more)


@router.get("/{id}", name="show_batch", responses=problems(404, 503))
def show_batch(id: _BatchId, services: ServicesDep, principal: PrincipalDep) -> BatchView:
    """Show a batch of yours."""
    return view_batch(services.batches.fetch(id, principal.owner))


@router.post(
    "/{id}/cancel",
    name="cancel_batch",
    dependencies=[GENERATE_ONLY],
    responses=problems(403, 404, 409, 429, 503),
)
def cancel_batch(id: _BatchId, services: ServicesDep, principal: PrincipalDep) -> BatchView:
    """Cancel a batch: its jobs are cancelled, and the results so far become its files."""
    return view_batch(services.batches.cancel(id, principal.owner))
