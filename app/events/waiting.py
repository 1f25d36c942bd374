"""`Prefer: wait`: read from the header; waited for without a thread, and without asking Redis again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from app.events.notifier import JobNotifier
from contracts.errors import FieldProblem, InvalidRequest, Unavailable
from contracts.queue.client import JobQueue
from contracts.queue.records import JobRecord, JobState

MAX_WAIT_SECONDS = 60
_RETRY_SECONDS = 0.5
#: After these a waiter looks.
_ENDS = frozenset({state.value for state in JobState if state.is_final} | {"gone"})


def read_preference(request: Request) -> int | None:
    """Seconds that the client prefers to wait, or None. Other preferences are passed over, as RFC 7240 wants it.

    Raises:
        InvalidRequest: a number that is none, or out of range.
    """
    for name, value in _preferences(request.headers.getlist("prefer")):
        if name == "wait":
            if not value:
                return MAX_WAIT_SECONDS
            if value.isascii() and value.isdecimal() and 1 <= int(value[:9]) <= MAX_WAIT_SECONDS:
                return int(value)
            message = "wait is a whole number of seconds; the job goes on when they are over"
            raise InvalidRequest([FieldProblem("Prefer", message, f"wait=1–{MAX_WAIT_SECONDS}")])
    return None


def _preferences(headers: list[str]) -> Iterator[tuple[str, str]]:
    for part in ",".join(headers).split(","):
        name, _, value = part.partition(";")[0].partition("=")
        yield name.strip().lower(), value.strip().strip('"')


async def wait_for_end(bells: JobNotifier, queue: JobQueue, record: JobRecord, seconds: float) -> JobRecord:
    """The job once it has ended, or as it is when the time is over or the process has to go."""
    with bells.listen(record.id, _ENDS) as bell, suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not bells.leaving:
                try:
                    record = await run_in_threadpool(queue.fetch, record.id)
                except Unavailable:  # the bell has been heard, and will not ring again for the same end
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if record.state.is_final:
                    break
                await bell.heard()
    return record
