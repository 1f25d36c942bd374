"""Attempts that are under way: an event loop in a thread of its own, with many places, and few for one receiver.

Knows neither what an attempt does nor where messages come from.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from contracts.outbound.outbox import Message
from dispatcher.settings import WebhookSettings

_log = logging.getLogger(__name__)


class AttemptPool:
    """Places for attempts. One thread begins them."""

    def __init__(self, attempt: Callable[[Message], Coroutine[Any, Any, None]], settings: WebhookSettings) -> None:
        """`attempt` raises nothing but what a cancellation makes it raise."""
        self._attempt = attempt
        self._settings = settings
        self._lock = threading.Lock()
        self._sites: Counter[str] = Counter()
        self._futures: set[Future[None]] = set()
        self._loop = asyncio.new_event_loop()
        # A look-up of a name or a write to Redis holds a thread; a slow one must not hold up the others.
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="attempt")
        self._loop.set_default_executor(self._threads)
        self._thread = threading.Thread(target=self._loop.run_forever, name="attempts", daemon=True)
        self._thread.start()

    @property
    def have_room(self) -> bool:
        """Whether another may begin at all."""
        with self._lock:
            return self._sites.total() < self._settings.concurrency

    @property
    def full_sites(self) -> list[str]:
        """Receivers that have all places they may have."""
        with self._lock:
            return [site for site, count in self._sites.items() if count >= self._settings.site_concurrency]

    def begin(self, message: Message) -> None:
        """Take a place for a message, until its attempt has ended."""
        with self._lock:
            self._sites[message.site] += 1
        future = asyncio.run_coroutine_threadsafe(self._attempt(message), self._loop)
        self._futures.add(future)

        def leave(ended: Future[None]) -> None:
            self._futures.discard(ended)
            with self._lock:
                self._sites[message.site] -= 1
                self._sites += Counter()  # forgets those that have none left
            error = None if ended.cancelled() else ended.exception()
            if error is not None:
                _log.error("message %s: its lease has to run out", message.id, exc_info=error)

        future.add_done_callback(leave)

    def end(self, last: Coroutine[Any, Any, None]) -> None:
        """Let those under way finish within the grace period, cancel the others, do one `last` thing."""
        futures = list(self._futures)
        _, late = wait(futures, self._settings.drain_seconds)
        for future in late:
            future.cancel()
        wait([asyncio.run_coroutine_threadsafe(self._finish(last), self._loop)])
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._threads.shutdown()
        self._loop.close()

    async def _finish(self, last: Coroutine[Any, Any, None]) -> None:
        """A cancelled attempt still hands its message back."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await last
