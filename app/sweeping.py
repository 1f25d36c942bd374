"""Sweeps what has expired, in every API process beside its requests. What is due is `contracts.retention`'s."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi.concurrency import run_in_threadpool

from contracts.errors import Unavailable
from contracts.retention import Retention

log = logging.getLogger(__name__)


@asynccontextmanager
async def sweeping(retention: Retention, pause_seconds: float) -> AsyncIterator[None]:
    """Sweep while the block runs; a round that is under way at its end is finished."""
    end = asyncio.Event()
    task = asyncio.create_task(_sweep(retention, pause_seconds, end))
    try:
        yield
    finally:
        end.set()
        await task


async def _sweep(retention: Retention, pause_seconds: float, end: asyncio.Event) -> None:
    while not end.is_set():
        removed = 0
        try:
            removed = await run_in_threadpool(retention.sweep)
        except Unavailable as error:
            log.warning("nothing swept: %s", error)
        except Exception:
            # One thing that cannot be swept must not end the sweeping of all others.
            log.exception("a sweep failed")
        if not removed:
            with suppress(TimeoutError):
                await asyncio.wait_for(end.wait(), pause_seconds)
