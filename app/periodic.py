"""Periodic work of an API process beside its requests, such as sweeping. Knows nothing of the work itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi.concurrency import run_in_threadpool
from redis.exceptions import RedisError

from contracts.errors import Unavailable

log = logging.getLogger(__name__)

#: Maximum time until the first round. Not at once: a process that starts would do all of its work together, each
#: in a thread and over a connection of its own, while the first requests wait.
_FIRST_SECONDS = 5.0


@asynccontextmanager
async def repeating(
    work: Callable[[], object], pause_seconds: float, *, last: bool = False
) -> AsyncIterator[None]:
    """Run some work in a thread periodically while the block runs. A round in progress is finished at the end.

    The first round comes after a pause, too, of at most five seconds.

    Args:
        work: one round; returns true when the next round should follow immediately.
        last: whether to run one more round when the block has ended.
    """
    end = asyncio.Event()
    task = asyncio.create_task(_repeat(work, pause_seconds, end))
    try:
        yield
    finally:
        end.set()
        await task
        if last:
            await _work(work)


async def _repeat(work: Callable[[], object], pause_seconds: float, end: asyncio.Event) -> None:
    await _pause(end, min(pause_seconds, _FIRST_SECONDS))
    while not end.is_set():
        if not await _work(work):
            await _pause(end, pause_seconds)


async def _pause(end: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(end.wait(), seconds)


async def _work(work: Callable[[], object]) -> object:
    try:
        return await run_in_threadpool(work)
    except (Unavailable, RedisError) as error:
        log.warning("%s failed, and will be tried again: %s", _name_of(work), error)
    except Exception:
        # An unexpected error must not end all later rounds.
        log.exception("%s failed", _name_of(work))
    return None


def _name_of(work: Callable[[], object]) -> str:
    called = work.func if isinstance(work, partial) else work
    return str(getattr(called, "__qualname__", called))
