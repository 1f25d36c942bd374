"""The route of a job's event stream. `app/events/` reads and writes the events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool

from app.dependencies.access import OwnJobDep
from app.dependencies.services import ServicesDep
from app.events.sse import EVENT_ID, EventStream, has_more, read_position, stream_events
from app.openapi.routes import event_stream, problems

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.get(
    "/jobs/{id}/events",
    name="stream_job_events",
    response_class=Response,
    responses={
        **event_stream(),
        204: {"description": "No event will follow `Last-Event-ID`; browsers stop reconnecting"},
        **problems(404, 410, 422, 503),
    },
)
async def show_events(
    record: OwnJobDep,
    services: ServicesDep,
    last_event_id: Annotated[
        str | None,
        Header(
            description="Start after the event with this id. Default: the first event.",
            json_schema_extra={"pattern": EVENT_ID},
        ),
    ] = None,
) -> Response:
    """Stream the job's events: those so far, then each as it happens, until the job ends."""
    after = read_position(last_event_id)
    if after != "0" and not await run_in_threadpool(has_more, services.queue, record.id, after):
        return Response(status_code=204)
    settings = services.settings
    events = stream_events(services.notifier, services.queue, record.id, after, settings.heartbeat_seconds)
    return EventStream(events, settings.stall_seconds)
