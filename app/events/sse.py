"""A job's events as server-sent events: those so far, then each as it happens, and heartbeats, until the job ends.

Events are read from Redis when the client is ready for them, so a slow client costs one page of events in memory.
One that accepts no data for a while is disconnected by `app/connections.py`, as from every other answer.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from app.events.notifier import JobNotifier, Subscription
from contracts.errors import FieldProblem, InvalidRequest, NotFound, Unavailable
from contracts.jobs.events import Event
from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.views.job import JobView

#: Events that one stream holds in memory.
_PAGE = 32
_RETRY_SECONDS = 0.5
#: Pause after which a browser reconnects.
_RECONNECT_MILLISECONDS = 1000
#: A comment, which clients ignore.
HEARTBEAT = ": heartbeat\n\n"
_ENDS = frozenset(state.value for state in JobState if state.is_final)
#: The status of a job at its events, other than those that are named as the status that they lead to.
_STATUS = {"preparing": "queued", "started": "running", "progress": "running", "preview": "running"}
#: What progress says that is not the newest.
_NO_ESTIMATE: Mapping[str, object] = {"eta_seconds": None, "eta_range_seconds": None}
#: Names in stored events that a job has other names for.
_JOB_NAMES = {"attempt": "attempts"}
#: Pattern of an event's id, as Redis writes it; 19 digits, since Redis rejects numbers above 64 bits.
EVENT_ID = r"^([0-9]{1,19}(-[0-9]{1,19})?)?$"
_ID = re.compile(EVENT_ID)


def read_position(last_event_id: str | None) -> str:
    """The id of the event after which to start; raises InvalidRequest for text that is not an event id."""
    if not last_event_id:
        return "0"
    if _ID.fullmatch(last_event_id) is None:
        raise InvalidRequest([FieldProblem("Last-Event-ID", "not an event id of this stream")])
    return last_event_id


async def stream_events(
    notifier: JobNotifier,
    queue: JobQueue,
    job_id: str,
    after: str,
    heartbeat_seconds: float,
    view: Callable[[JobRecord], JobView],
    estimate: Callable[[], Awaitable[Mapping[str, object]]],
) -> AsyncIterator[str]:
    """Yield one job's events as text.

    Args:
        view: makes the job that its last event holds.
        estimate: what is expected now of the job's end, as its progress says it: of the newest progress only.
    """
    yield f"retry: {_RECONNECT_MILLISECONDS}\n\n"
    async for page in _follow_pages(notifier, queue, job_id, after, heartbeat_seconds):
        if not page:
            yield HEARTBEAT
        for event in page:
            if event.kind in _ENDS:
                yield _write(event, await _view_ended(notifier, queue, job_id, view))
            elif event.kind == "progress":
                found = await estimate() if event is page[-1] else {}
                yield _write(event, estimate={**_NO_ESTIMATE, **found})
            else:
                yield _write(event)


async def _view_ended(
    notifier: JobNotifier, queue: JobQueue, job_id: str, view: Callable[[JobRecord], JobView]
) -> JobView | None:
    """The job after its last event; None where it is deleted by now, or Redis is away while the process ends."""
    while not notifier.is_closed:
        try:
            return await run_in_threadpool(lambda: view(queue.fetch(job_id)))
        except NotFound:
            return None
        except Unavailable:
            await asyncio.sleep(_RETRY_SECONDS)
    return None


async def follow_events(
    notifier: JobNotifier, queue: JobQueue, job_id: str, after: str, heartbeat_seconds: float
) -> AsyncIterator[Event | None]:
    """Yield one job's events up to its last one or the process's shutdown; None for each silent interval."""
    async for page in _follow_pages(notifier, queue, job_id, after, heartbeat_seconds):
        for event in page or (None,):
            yield event


async def _follow_pages(
    notifier: JobNotifier, queue: JobQueue, job_id: str, after: str, heartbeat_seconds: float
) -> AsyncIterator[list[Event]]:
    """Yield what has come since the last page, as long as there may be more; an empty page for each silence."""
    with notifier.subscribe(job_id) as subscription:
        while not notifier.is_closed:
            try:
                events = await run_in_threadpool(_read_next, queue, job_id, after)
            except Unavailable:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if events is None:
                return
            if events:
                yield events
                after = events[-1].id
                if events[-1].kind in _ENDS:
                    return
            while len(events) < _PAGE and not await _is_notified(subscription, heartbeat_seconds):
                yield []


def has_more(queue: JobQueue, job_id: str, after: str) -> bool:
    """Whether an event follows this one, now or later."""
    return _read_next(queue, job_id, after) is not None


def _read_next(queue: JobQueue, job_id: str, after: str) -> list[Event] | None:
    """The next events, possibly none so far; None when no more will come."""
    events = queue.events(job_id, after, _PAGE)
    if events:
        return events
    try:
        if not queue.fetch(job_id).state.is_final:
            return []
    except NotFound:
        return None
    return queue.events(job_id, after, _PAGE) or None  # the job may have ended between the two reads


async def _is_notified(subscription: Subscription, seconds: float) -> bool:
    try:
        await asyncio.wait_for(subscription.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _write(event: Event, job: JobView | None = None, estimate: Mapping[str, object] | None = None) -> str:
    """An event as text: its data with the fields' public names, the job's status and the time of the event."""
    replaced = ("at", "state") if event.kind in _ENDS else ("at",)
    data = {_JOB_NAMES.get(name, name): value for name, value in event.data.items() if name not in replaced}
    shown = {"status": _STATUS.get(event.kind, event.kind), "at": _time_of(event), **data, **(estimate or {})}
    if job is not None:
        shown["job"] = job.model_dump(mode="json")
    return write_message(event.id, event.kind, json.dumps(shown))


def write_message(id: str, kind: str, data: str) -> str:
    """One server-sent event as text; each line of the data is a field of its own."""
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"id: {id}\nevent: {kind}\n{lines}\n"


def _time_of(event: Event) -> str:
    """When an event happened: its id begins with that, in milliseconds since 1970 on Redis' clock."""
    happened = datetime.fromtimestamp(int(event.id.partition("-")[0]) / 1000, UTC)
    return happened.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class EventStream(StreamingResponse):
    """A response of server-sent events; its headers tell proxies neither to keep nor to buffer it."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[str]) -> None:
        super().__init__(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
