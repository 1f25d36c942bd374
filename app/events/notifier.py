"""Tells waiting clients that something happened to a job: one Redis subscription a process, for all of them.

The scripts publish `ID KIND` with every event. A notification carries no data and may be lost with the connection;
after a reconnect every subscription is notified, and its holder reads the job's state from Redis. So nothing piles
up for slow clients. While nobody waits, nothing is received, since every event would cost the process some time.
Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from contracts.redis import keys
from contracts.redis.connection import connected_async

log = logging.getLogger(__name__)

#: A connection that is silent for this long is pinged, and has as long to answer.
_SILENCE_SECONDS = 5.0
_RECONNECT_SECONDS = 0.5
#: The connection is kept for this long after the last subscription.
_LINGER_SECONDS = 5.0
_TIMEOUT_SECONDS = 2.0
_CANCEL_SECONDS = 0.02


class Subscription:
    """One client's wait for a job's events; a notification stays set until it is consumed."""

    def __init__(self, kinds: frozenset[str] | None) -> None:
        self._kinds = kinds
        self._notified = asyncio.Event()

    def notify(self, kind: str | None = None) -> None:
        """Report an event of this kind; None: an event may have happened."""
        if kind is None or self._kinds is None or kind in self._kinds:
            self._notified.set()

    async def wait(self) -> None:
        """Wait for the next notification, and consume it."""
        await self._notified.wait()
        self._notified.clear()


class JobNotifier:
    """The subscriptions of one process. Belongs to one event loop.

    Attributes:
        is_closed: the process shuts down, and nobody should go on waiting.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self._subscriptions: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._is_needed = asyncio.Event()

    def __len__(self) -> int:
        """Number of open subscriptions."""
        return sum(map(len, self._subscriptions.values()))

    @contextmanager
    def subscribe(self, job_id: str, kinds: frozenset[str] | None = None) -> Iterator[Subscription]:
        """Subscribe to one job's events, or to some kinds of them. Subscribe first, then read, then wait."""
        subscription = Subscription(kinds)
        self._subscriptions[job_id].add(subscription)
        self._is_needed.set()
        try:
            yield subscription
        finally:
            self._subscriptions[job_id].discard(subscription)
            if not self._subscriptions[job_id]:
                del self._subscriptions[job_id]
            if not self._subscriptions:
                self._is_needed.clear()

    def close(self) -> None:
        """End all waits."""
        self.is_closed = True
        self._notify_all()

    @asynccontextmanager
    async def connected(self, url: str) -> AsyncIterator[None]:
        """Receive events from Redis while the block runs and somebody waits; a lost connection is made again."""
        task = asyncio.create_task(self._receive_forever(url))
        try:
            yield
        finally:
            # Repeatedly: the Redis client swallows a cancellation that arrives while it connects.
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CANCEL_SECONDS)

    async def _receive_forever(self, url: str) -> None:
        while True:
            await self._is_needed.wait()
            try:
                async with (
                    connected_async(url, timeout_seconds=_TIMEOUT_SECONDS) as client,
                    client.pubsub() as channel,
                ):
                    await channel.subscribe(keys.JOB_CHANNEL)
                    await self._receive(channel)
            except (RedisError, OSError) as error:
                log.warning("no events: Redis does not answer: %s", error)
            if self._is_needed.is_set():
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _receive(self, channel: PubSub) -> None:
        """Receive until the connection is lost or dead, or nobody has waited for a while."""
        is_pinged, needed_at = False, time.monotonic()
        while self._is_needed.is_set() or time.monotonic() - needed_at < _LINGER_SECONDS:
            if self._is_needed.is_set():
                needed_at = time.monotonic()
            message = await channel.get_message(timeout=_SILENCE_SECONDS)
            if message is None:
                if is_pinged:
                    return
                await channel.ping()
            is_pinged = message is None
            if message is not None:
                self._dispatch(message)

    def _dispatch(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self._notify_all()  # events before the subscription were missed
        elif message["type"] == "message":
            job_id, _, kind = message["data"].partition(" ")
            for subscription in self._subscriptions.get(job_id, ()):
                subscription.notify(kind)

    def _notify_all(self) -> None:
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.notify()
