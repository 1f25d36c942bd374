"""The route of a job's event stream. `app/events/` reads and writes the events.

A signed link gives access to one job's events without an API key: a browser's `EventSource` sends no headers.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool

from app.dependencies.access import EventsJobDep
from app.dependencies.services import LinksDep, ServicesDep
from app.events.sse import EVENT_ID, has_more, read_position, stream_events
from app.job_response import estimate_end
from app.openapi.routes import event_stream, problems
from contracts.views.job import view_job

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.get(
    "/jobs/{id}/events",
    name="stream_job_events",
    response_class=Response,
    openapi_extra={"security": [{"HTTPBearer": []}, {}]},
    responses={
        **event_stream(),
        204: {"description": "No event will follow `Last-Event-ID`; browsers stop reconnecting"},
        **problems(401, 403, 404, 410, 421, 422, 503),
    },
)
async def show_events(
    record: EventsJobDep,
    services: ServicesDep,
    links: LinksDep,
    last_event_id: Annotated[
        str | None,
        Header(
            description="Start after the event with this id. Default: the first event.",
            json_schema_extra={"pattern": EVENT_ID},
        ),
    ] = None,
    expires: Annotated[
        str | None, Query(description="Expiry time of a signed link, in Unix seconds. Default: no link.")
    ] = None,
    signature: Annotated[str | None, Query(description="Signature of a signed link. Default: no link.")] = None,
) -> Response:
    """Stream the job's events: those so far, then each as it happens. The last one, at its end, holds the job."""
    del expires, signature  # declared for the OpenAPI document; EventsJobDep checks the whole query
    after = read_position(last_event_id)
    if after != "0" and not await run_in_threadpool(has_more, services.queue, record.id, after):
        return Response(status_code=204)
    settings = services.settings
    view = partial(view_job, links=links)
    estimate = partial(run_in_threadpool, estimate_end, record, services.queue)
    texts = stream_events(
        services.notifier, services.queue, record.id, after, settings.heartbeat_seconds, view, estimate
    )
    return await services.attendance.stream(record, texts)
