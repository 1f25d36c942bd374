"""Attempts that are under way: an event loop in a background thread, with many places, few for one receiver.

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
from contracts.processes.background import BackgroundThread
from contracts.processes.shutdown import Shutdown
from dispatcher.settings import WebhookSettings

_log = logging.getLogger(__name__)

_SHUTDOWN_CHECK_SECONDS = 0.05


class AttemptPool:
    """A limited number of attempts that run concurrently. One thread begins them."""

    def __init__(
        self,
        attempt: Callable[[Message], Coroutine[Any, Any, None]],
        settings: WebhookSettings,
        on_end: Callable[[], object],
    ) -> None:
        """Start the event loop.

        Args:
            attempt: raises only what a cancellation makes it raise.
            on_end: called in any thread whenever an attempt has ended and its place is free.
        """
        self._attempt = attempt
        self._settings = settings
        self._on_end = on_end
        self._lock = threading.Lock()
        self._sites: Counter[str] = Counter()
        self._futures: set[Future[None]] = set()
        self._loop = asyncio.new_event_loop()
        # A name lookup or a write to Redis occupies a thread; a slow one must not delay the others.
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="attempt")
        self._loop.set_default_executor(self._threads)
        self._loop_thread = BackgroundThread("attempts")
        self._loop_thread.submit(self._loop.run_forever)

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the attempts run in."""
        return self._loop

    @property
    def has_room(self) -> bool:
        """Whether another attempt may begin."""
        with self._lock:
            return self._sites.total() < self._settings.concurrency

    @property
    def full_sites(self) -> list[str]:
        """Receivers that have all the places that one receiver may have."""
        with self._lock:
            return [site for site, count in self._sites.items() if count >= self._settings.site_concurrency]

    def begin(self, message: Message) -> None:
        """Begin an attempt; it has a place until it ends."""
        with self._lock:
            self._sites[message.site] += 1
        future = asyncio.run_coroutine_threadsafe(self._attempt(message), self._loop)
        self._futures.add(future)

        def free_place(ended: Future[None]) -> None:
            self._futures.discard(ended)
            with self._lock:
                self._sites[message.site] -= 1
                self._sites += Counter()  # drops sites whose count is 0
            error = None if ended.cancelled() else ended.exception()
            if error is not None:
                _log.error("message %s: sent again when its lease expires", message.id, exc_info=error)
            self._on_end()

        future.add_done_callback(free_place)

    def close(self, shutdown: Shutdown, last: Coroutine[Any, Any, None]) -> None:
        """Let the attempts finish until the shutdown is overdue, cancel the others, then run `last`."""
        futures = set(self._futures)
        while futures and not shutdown.overdue:
            _, futures = wait(futures, _SHUTDOWN_CHECK_SECONDS)
        for future in futures:
            future.cancel()
        wait([asyncio.run_coroutine_threadsafe(self._finish(last), self._loop)])
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._loop_thread.close()
        self._threads.shutdown()
        self._loop.close()

    async def _finish(self, last: Coroutine[Any, Any, None]) -> None:
        """A cancelled attempt still releases its message."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await last
