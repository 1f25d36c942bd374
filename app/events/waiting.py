"""Waiting for a job's end as `Prefer: wait` asks for (RFC 7240): without a thread and without polling Redis."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from app.errors import ClientLeft
from app.events.notifier import JobNotifier
from contracts.errors import Unavailable
from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue

MAX_WAIT_SECONDS = 60
_RETRY_SECONDS = 0.5
#: Events after which the job is read again.
_ENDS = frozenset({state.value for state in JobState if state.is_final} | {"gone"})


def read_preference(request: Request) -> int | None:
    """Seconds that the client prefers to wait, or None.

    A preference is never an error (RFC 7240, 2): a number out of range is moved to the nearest that is in it, and
    what is not a number, or another preference, is ignored. `Preference-Applied` in the response tells which.
    """
    for name, value in _preferences(request.headers.getlist("prefer")):
        if name == "wait":
            return MAX_WAIT_SECONDS if not value else _nearest_wait(value)
    return None


def _nearest_wait(value: str) -> int | None:
    """The number of seconds that is nearest to this one; None for text that is not a whole number."""
    match = re.fullmatch(r"(-?)0*([0-9]*)", value, re.ASCII)
    if match is None or value == "-":
        return None
    sign, digits = match.groups()
    if len(digits) > len(str(MAX_WAIT_SECONDS)):  # the longest are more than `int` reads
        digits = str(MAX_WAIT_SECONDS)
    return 1 if sign else min(max(int(digits or "0"), 1), MAX_WAIT_SECONDS)


def _preferences(headers: list[str]) -> Iterator[tuple[str, str]]:
    for part in ",".join(headers).split(","):
        name, _, value = part.partition(";")[0].partition("=")
        yield name.strip().lower(), value.strip().strip('"')


async def wait_for_end(notifier: JobNotifier, queue: JobQueue, record: JobRecord, seconds: float) -> JobRecord:
    """Return the job once it has ended, or as it is after `seconds` or when the process shuts down."""
    with notifier.subscribe(record.id, _ENDS) as subscription, suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not notifier.is_closed:
                try:
                    record = await run_in_threadpool(queue.fetch, record.id)
                except Unavailable:  # the notification is consumed, and will not come again
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if record.state.is_final:
                    break
                await subscription.wait()
    return record


async def wait_with_client(
    notifier: JobNotifier,
    queue: JobQueue,
    record: JobRecord,
    seconds: float,
    client_left: Callable[[], Awaitable[None]],
) -> JobRecord:
    """As `wait_for_end`, for a client that may lose its connection meanwhile.

    Args:
        client_left: returns when the client's connection is closed.

    Raises:
        ClientLeft: it was closed before there was anything to answer.
    """
    waiting = asyncio.ensure_future(wait_for_end(notifier, queue, record, seconds))
    leaving = asyncio.ensure_future(client_left())
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientLeft
        return waiting.result()
    finally:
        waiting.cancel()
        leaving.cancel()
