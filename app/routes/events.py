"""A job's events over HTTP. How they are told is `app.streams`' matter."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool

from app.dependencies.services import AnyService, OwnJob
from app.events.sse import EVENT_ID, EventStream, has_more, read_position, stream_events
from app.openapi.routes import problems, told

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.get(
    "/jobs/{id}/events",
    response_class=Response,
    responses={
        **told(),
        204: {"description": "Nothing comes after that event; a browser does not come back"},
        **problems(404, 410, 422, 503),
    },
)
async def show_events(
    record: OwnJob,
    services: AnyService,
    last_event_id: Annotated[
        str | None, Header(description="begin after this event", json_schema_extra={"pattern": EVENT_ID})
    ] = None,
) -> Response:
    """What happened to the job, and what happens from now on, until its end."""
    after = read_position(last_event_id)
    if after != "0" and not await run_in_threadpool(has_more, services.queue, record.id, after):
        return Response(status_code=204)
    settings = services.settings
    events = stream_events(services.bells, services.queue, record.id, after, settings.heartbeat_seconds)
    return EventStream(events, settings.stall_seconds)
