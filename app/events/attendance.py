"""Clients of this process that wait for jobs with `cancel_on_disconnect`.

A client that loses its connection may reconnect to any process; its job is cancelled only if no client has done so
within a grace period. A running process keeps extending the jobs of its clients; when it dies, they get the same
grace.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from fastapi.concurrency import run_in_threadpool

from app.events.sse import EventStream
from contracts.errors import Unavailable
from contracts.jobs.records import JobRecord
from contracts.queue.attendance import AttendedJobs

log = logging.getLogger(__name__)

#: Interval between extensions. A job is extended by one more, so that the grace is never shorter than the setting.
PAUSE_SECONDS = 1.0


class Attendance:
    """The attended jobs of one process. Redis is asked in `register`, `release` and `keep`, which threads call."""

    def __init__(self, jobs: AttendedJobs, grace_seconds: float) -> None:
        """`grace_seconds`: how long a job goes on without a client."""
        self._jobs = jobs
        self._grace_seconds = grace_seconds
        self._here: Counter[str] = Counter()
        self._lock = threading.Lock()
        #: Or a job might be extended by `keep` for a client that left, just after its release.
        self._asking = threading.Lock()

    def register(self, record: JobRecord) -> None:
        """A client is about to wait for a job: from now on, the job is cancelled if no client waits for it."""
        if record.cancel_on_disconnect and not record.state.is_final:
            with suppress(Unavailable):  # the call goes on, and `keep` extends the job
                self._jobs.extend([record.id], self._grace_seconds + PAUSE_SECONDS)

    def release(self, record: JobRecord) -> None:
        """A client knows how to find the job again, or has found it: let the job go on without a client."""
        if record.cancel_on_disconnect and not record.state.is_final:
            # At worst the job is cancelled where it might have gone on.
            with suppress(Unavailable), self._asking:
                self._jobs.release(record.id)

    @contextmanager
    def attending(self, record: JobRecord) -> Iterator[None]:
        """A client waits for the job while the block runs."""
        if not record.cancel_on_disconnect:
            yield
            return
        with self._lock:
            self._here[record.id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._here[record.id] -= 1
                self._here += Counter()  # drops jobs without clients

    async def stream(self, record: JobRecord, texts: AsyncIterator[str]) -> EventStream:
        """The response of a stream of a job's events, whose client waits for the job while it reads."""
        await run_in_threadpool(self.register, record)

        async def attended() -> AsyncIterator[str]:
            with self.attending(record):
                async for text in texts:
                    yield text

        return EventStream(attended())

    def keep(self) -> None:
        """Extend the jobs of this process's clients, and cancel those without a client at any process."""
        with self._asking:
            with self._lock:
                here = list(self._here)
            if here:
                self._jobs.extend(here, self._grace_seconds + PAUSE_SECONDS)
        for id in self._jobs.cancel_deserted(self._grace_seconds):
            log.info("job cancelled: its client disconnected and did not reconnect", extra={"job_id": id})
