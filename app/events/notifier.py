"""Tells whoever waits for a job that something happened to it: one Redis subscription a process, for all of them.

The scripts publish `ID KIND` with every event. A bell carries nothing and promises little: a ring that is lost
with the connection is made up for by ringing every bell after it is back, and whoever hears one reads Redis for
what is true. So nothing piles up for those who are slow to listen. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from contracts.redis import keys

log = logging.getLogger(__name__)

#: After so much silence the connection is asked whether it lives, and given as long to answer.
_SILENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.5
_CONNECT_SECONDS = 2.0
_CANCEL_SECONDS = 0.02


class Subscription:
    """One listener's own; it stays rung until it has been heard."""

    def __init__(self, kinds: frozenset[str] | None) -> None:
        self._kinds = kinds
        self._rung = asyncio.Event()

    def ring(self, kind: str | None = None) -> None:
        """Something of this kind happened; None: perhaps."""
        if kind is None or self._kinds is None or kind in self._kinds:
            self._rung.set()

    async def heard(self) -> None:
        """Wait for the next ring."""
        await self._rung.wait()
        self._rung.clear()


class JobNotifier:
    """All listeners of one process. Belongs to one event loop.

    Attributes:
        leaving: the process ends; nobody should wait any longer.
    """

    def __init__(self) -> None:
        self.leaving = False
        self._bells: defaultdict[str, set[Subscription]] = defaultdict(set)

    def __len__(self) -> int:
        """How many listen."""
        return sum(map(len, self._bells.values()))

    @contextmanager
    def listen(self, job_id: str, kinds: frozenset[str] | None = None) -> Iterator[Subscription]:
        """A bell for one job's events, or for some kinds of them. First listen, then look, then wait."""
        bell = Subscription(kinds)
        self._bells[job_id].add(bell)
        try:
            yield bell
        finally:
            self._bells[job_id].discard(bell)
            if not self._bells[job_id]:
                del self._bells[job_id]

    def leave(self) -> None:
        """Let nobody wait any longer."""
        self.leaving = True
        self._ring_all()

    @asynccontextmanager
    async def connected(self, url: str) -> AsyncIterator[None]:
        """Hear the scripts while the block runs; a Redis that is away is tried again and again."""
        task = asyncio.create_task(self._hear_for_ever(url))
        try:
            yield
        finally:
            # Again and again: the Redis client swallows a cancellation that meets it while it connects.
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CANCEL_SECONDS)

    async def _hear_for_ever(self, url: str) -> None:
        while True:
            client = Redis.from_url(
                url,
                decode_responses=True,
                socket_connect_timeout=_CONNECT_SECONDS,
                socket_timeout=_CONNECT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
            try:
                async with client, client.pubsub() as subscription:
                    await subscription.subscribe(keys.JOB_CHANNEL)
                    await self._hear(subscription)
            except (RedisError, OSError) as error:
                log.warning("no events, Redis does not answer: %s", error)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _hear(self, subscription: PubSub) -> None:
        """Until the connection is lost or dead."""
        asked = False
        while True:
            message = await subscription.get_message(timeout=_SILENCE_SECONDS)
            if message is None:
                if asked:
                    return
                await subscription.ping()
            asked = message is None
            if message is not None:
                self._pass_on(message)

    def _pass_on(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self._ring_all()  # what happened before was not heard
        elif message["type"] == "message":
            job_id, _, kind = message["data"].partition(" ")
            for bell in self._bells.get(job_id, ()):
                bell.ring(kind)

    def _ring_all(self) -> None:
        for bells in self._bells.values():
            for bell in bells:
                bell.ring()
