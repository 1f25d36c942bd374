"""A job's events as Replicate's clients read them: `logs`, `output`, `error`, `done`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

from fastapi.concurrency import run_in_threadpool

from app.events.sse import HEARTBEAT, follow_events, write_message
from app.services import Services
from contracts.errors import NotFound
from contracts.jobs.events import Event
from contracts.jobs.records import JobRecord, JobState
from contracts.views.links import Links
from contracts.views.prediction import output_of, progress_line


async def stream_prediction(services: Services, record: JobRecord, links: Links) -> AsyncIterator[str]:
    """Yield one job's events as text, up to `done`."""
    queue, id = services.queue, "0"
    async for event in follow_events(
        services.notifier, queue, record.id, "0", services.settings.heartbeat_seconds
    ):
        if event is None:
            yield HEARTBEAT
            continue
        id = event.id
        if line := _log_of(event, record):
            yield write_message(id, "logs", line)
    try:
        record = await run_in_threadpool(queue.fetch, record.id)
    except NotFound:
        yield write_message(id, "error", json.dumps({"detail": "the prediction has been deleted"}))
        return
    if record.state.is_final:  # else this process shuts down, and the client comes back to another one
        for text in _end_of(id, record, links):
            yield text


def _log_of(event: Event, record: JobRecord) -> str:
    """What an event adds to the log."""
    if event.kind == "started":
        return f"Using seed: {record.parameters.seed}"
    if event.kind == "progress":
        return progress_line(int(event.data.get("step", 0)), int(event.data.get("steps", 0))).rstrip("\n")
    return ""


def _end_of(id: str, record: JobRecord, links: Links) -> Iterator[str]:
    """Yield the images or the error, and the last event."""
    reason: dict[str, str] = {}
    if record.state is JobState.COMPLETED:
        for url in output_of(record, links):
            yield write_message(id, "output", url)
    elif record.error is not None:
        yield write_message(id, "error", json.dumps({"detail": f"{record.error.code}: {record.error.message}"}))
        reason = {"reason": "error"}
    else:
        reason = {"reason": "canceled"}
    yield write_message(id, "done", json.dumps(reason))
