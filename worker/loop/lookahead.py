"""While jobs are denoised: find which jobs come next, begin to prepare what they lack, and encode their prompts.

Prompts are encoded ahead where T5 runs on the CPU, those of jobs in flight first.

Claims nothing, so another worker may take those jobs. An error here costs no more than the time it was to save.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from redis.exceptions import RedisError

from contracts.jobs.log_context import job_context
from contracts.jobs.records import JobRecord
from contracts.leases.criteria import NextJobs
from contracts.processes.background import BackgroundThread
from contracts.requests.parameters import JobParameters
from worker.pool.pool import Pool

_log = logging.getLogger(__name__)

#: Between two looks at the queue while jobs are in flight.
_PAUSE_SECONDS = 0.2


class Lookahead:
    """A background thread that gets things ready for the next jobs. Used by the thread that runs the jobs."""

    def __init__(
        self, pool: Pool, peek: Callable[[], NextJobs], prepare: Callable[[Sequence[str]], object]
    ) -> None:
        """`peek` finds the jobs that a claim would take now; `prepare` begins to prepare what they lack."""
        self._pool = pool
        self._peek = peek
        self._prepare = prepare
        self._thread = BackgroundThread("lookahead")
        self._round: Future[None] | None = None
        self._paused = threading.Event()
        self._next_look_at = 0.0
        #: Jobs in flight whose prompts are to be encoded here, by id.
        self._expected: dict[str, JobRecord] = {}

    def expect(self, job: JobRecord) -> None:
        """Encode the prompts of a job in flight, too: others are served meanwhile."""
        self._expected[job.id] = job

    def forget(self, job_id: str) -> None:
        """The job has ended."""
        self._expected.pop(job_id, None)

    def is_encoding(self, job_id: str) -> bool:
        """Whether the prompts of a job in flight are being encoded here, or soon will be."""
        return job_id in self._expected and self._pool.prompts_ahead.is_possible

    def begin(self) -> None:
        """Look ahead in the background, unless that is going on already; returns at once."""
        if self._round is not None and not self._round.done():
            return
        if self._expected and self._pool.prompts_ahead.is_possible:
            self._round = self._thread.submit(partial(self._encode_expected, self._paused))
        elif time.monotonic() >= self._next_look_at:
            self._next_look_at = time.monotonic() + _PAUSE_SECONDS
            self._round = self._thread.submit(partial(self._look, self._paused))

    def pause(self) -> None:
        """No job is in flight: stop after the text that is being encoded."""
        self._paused.set()
        self._paused, self._next_look_at = threading.Event(), 0.0

    def close(self) -> None:
        """Pause, and wait for the text that is being encoded."""
        self.pause()
        self._thread.close()

    def _look(self, paused: threading.Event) -> None:
        try:
            found = self._peek()
        except RedisError as error:
            _log.warning("no lookahead, Redis does not answer: %s", error)
            return
        self._prepare(found.unready)
        if self._pool.prompts_ahead.is_possible:
            self._encode(found.jobs, paused)

    def _encode_expected(self, paused: threading.Event) -> None:
        for job in list(self._expected.values()):
            self._encode([job], paused)
            self.forget(job.id)

    def _encode(self, jobs: Sequence[JobRecord], paused: threading.Event) -> None:
        with job_context(jobs):
            try:
                for job in jobs:
                    if isinstance(job.parameters, JobParameters):
                        self._pool.prompts_ahead.encode(job.parameters, lambda: not paused.is_set(), job.owner)
            except Exception:  # noqa: BLE001  # a job whose prompt cannot be encoded reports that itself when it runs
                _log.exception("prompts were not encoded ahead")
