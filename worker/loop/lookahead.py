"""Looks, while a batch is painted, which jobs come next, and has T5 read their texts where it works on the CPU.

Claims nothing: another worker may take those jobs. What goes wrong here costs no more than it was to save.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from redis.exceptions import RedisError

from contracts.queue.leases import job_context
from contracts.queue.records import JobRecord
from worker.pool.pool import Pool

_log = logging.getLogger(__name__)

#: Between two looks at the queue while one batch runs.
_PAUSE_SECONDS = 0.2


class PromptLookahead:
    """A thread beside the jobs'; all methods are for theirs."""

    def __init__(self, pool: Pool, peek: Callable[[], Sequence[JobRecord]]) -> None:
        """`peek` tells whom a claim would take now."""
        self._pool = pool
        self._peek = peek
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="foresight")
        self._looking: Future[None] | None = None
        self._over = threading.Event()
        self._next_look_at = 0.0

    def look(self) -> None:
        """The device is busy for a while: begin to look ahead, where that is not going on already."""
        idle = self._looking is None or self._looking.done()
        if idle and time.monotonic() >= self._next_look_at and self._pool.can_encode_ahead:
            self._next_look_at = time.monotonic() + _PAUSE_SECONDS
            self._looking = self._thread.submit(self._look, self._over)

    def pause(self) -> None:
        """The batch is done: the text that T5 is reading is the last."""
        self._over.set()
        self._over, self._next_look_at = threading.Event(), 0.0

    def close(self) -> None:
        """Pause, wait for that text, and look no more."""
        self.pause()
        self._thread.shutdown()

    def _look(self, over: threading.Event) -> None:
        try:
            jobs = self._peek()
        except RedisError as error:
            _log.warning("no look ahead, Redis does not answer: %s", error)
            return
        with job_context(jobs):
            try:
                for job in jobs:
                    self._pool.encode_ahead(job.parameters, lambda: not over.is_set())
            except Exception:  # noqa: BLE001  # the job itself will tell, should it come here and fail again
                _log.exception("prompts were not encoded ahead")
