"""A job's events as server-sent events: what was missed, then each as it comes, heartbeats, and the end.

An event is read from Redis when its reader is ready for it, so that a slow reader costs one page of events and
no more; one that takes nothing at all for a while is let go.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.events.notifier import JobNotifier, Subscription
from contracts.errors import FieldProblem, InvalidRequest, NotFound, Unavailable
from contracts.queue.client import JobQueue
from contracts.queue.events import Event
from contracts.queue.records import JobState

log = logging.getLogger(__name__)

#: Events that one reader holds at a time.
_PAGE = 32
_RETRY_SECONDS = 0.5
#: The browser's pause before it comes back.
_RECONNECT_MILLISECONDS = 1000
#: A comment, which clients pass over.
HEARTBEAT = ": heartbeat\n\n"
_ENDS = frozenset(state.value for state in JobState if state.is_final)
#: An event's id, as Redis writes it; shorter than what may be too large for Redis.
EVENT_ID = r"^([0-9]{1,19}(-[0-9]{1,19})?)?$"
_ID = re.compile(EVENT_ID)


def read_position(last_event_id: str | None) -> str:
    """The event after which to begin; raises InvalidRequest for what was no event's id."""
    if not last_event_id:
        return "0"
    if _ID.fullmatch(last_event_id) is None:
        raise InvalidRequest([FieldProblem("Last-Event-ID", "is no id of an event of this stream")])
    return last_event_id


async def stream_events(
    bells: JobNotifier, queue: JobQueue, job_id: str, after: str, heartbeat_seconds: float
) -> AsyncIterator[str]:
    """The events of one job as text, until its last one."""
    yield f"retry: {_RECONNECT_MILLISECONDS}\n\n"
    async for event in follow_events(bells, queue, job_id, after, heartbeat_seconds):
        yield HEARTBEAT if event is None else _write(event)


async def follow_events(
    bells: JobNotifier, queue: JobQueue, job_id: str, after: str, heartbeat_seconds: float
) -> AsyncIterator[Event | None]:
    """The events of one job, until its last one or until the process has to go; None after a time without any."""
    with bells.listen(job_id) as bell:
        while not bells.leaving:
            try:
                events = await run_in_threadpool(_read_on, queue, job_id, after)
            except Unavailable:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            for event in events or ():
                yield event
                after = event.id
                if event.kind in _ENDS:
                    return
            if events is None:
                return
            while len(events) < _PAGE and not await _is_heard(bell, heartbeat_seconds):
                yield None


def has_more(queue: JobQueue, job_id: str, after: str) -> bool:
    """Whether anything comes after an event, now or later."""
    return _read_on(queue, job_id, after) is not None


def _read_on(queue: JobQueue, job_id: str, after: str) -> list[Event] | None:
    """The next events, maybe none; None when no more can come."""
    events = queue.events(job_id, after, _PAGE)
    if events:
        return events
    try:
        if not queue.fetch(job_id).state.is_final:
            return []
    except NotFound:
        return None
    return queue.events(job_id, after, _PAGE) or None  # it may have ended between the two looks


async def _is_heard(bell: Subscription, seconds: float) -> bool:
    try:
        await asyncio.wait_for(bell.heard(), seconds)
    except TimeoutError:
        return False
    return True


def _write(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"


class EventStream(StreamingResponse):
    """Server-sent events to a client that must take some of them within a time."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[str], stall_seconds: float) -> None:
        """Proxies are told to keep nothing back."""
        super().__init__(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._stall_seconds = stall_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until the client stalls; uvicorn then closes the connection."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._stall_seconds):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            log.info("a reader of events took nothing for %g s, and was let go", self._stall_seconds)
