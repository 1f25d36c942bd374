"""Work that every API process does beside its requests, again and again. What the work is, its owner knows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from fastapi.concurrency import run_in_threadpool
from redis.exceptions import RedisError

from contracts.errors import Unavailable

log = logging.getLogger(__name__)


@asynccontextmanager
async def repeating(
    work: Callable[[], object], pause_seconds: float, *, last: bool = False
) -> AsyncIterator[None]:
    """Work in a thread while the block runs; a round that is under way at its end is finished.

    Args:
        work: one round; true when the next should follow at once.
        last: whether to work once more when the block has ended.
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
    while not end.is_set():
        if not await _work(work):
            with suppress(TimeoutError):
                await asyncio.wait_for(end.wait(), pause_seconds)


async def _work(work: Callable[[], object]) -> object:
    try:
        return await run_in_threadpool(work)
    except (Unavailable, RedisError) as error:
        log.warning("%s: not now: %s", work.__qualname__, error)
    except Exception:
        # One thing that cannot be swept must not end the sweeping of all others.
        log.exception("%s failed", work.__qualname__)
    return None
