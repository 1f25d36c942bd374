"""Tells waiting jobs, and the log, how the preparation of their files goes on; ends jobs that wait in vain.

Also finds preparations that no job waits for. Knows no files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping

from redis.exceptions import RedisError

from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.preparations import FETCHING, READING, READY, RETRYING, Preparation
from contracts.jobs.records import JobError
from contracts.leases.claims import Claims
from contracts.processes.background import BackgroundThread
from contracts.processes.workers import read_workers
from worker.loop.preparation.prefetch import Prefetcher

_log = logging.getLogger(__name__)

_ROUND_SECONDS = 0.5
#: Between two lines of the log about one download, and between two events of a job about it.
_LOG_SECONDS, _PROGRESS_SECONDS = 10.0, 5.0
_STOP_SECONDS = 5.0


class PreparationNews:
    """A background thread that looks at all preparations twice a second."""

    def __init__(
        self,
        prefetcher: Prefetcher,
        claims: Claims,
        worker: str,
        limit_seconds: float,
        log_seconds: float = _LOG_SECONDS,
        loaded: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Build it; it looks from `start` on.

        Args:
            limit_seconds: how long jobs wait for files that cannot be downloaded for now.
            log_seconds: between two lines of the log about one download.
            loaded: names of what is in memory, and so is not prepared.
        """
        self._prefetcher = prefetcher
        self._jobs = claims.waiting_jobs()
        self._connection = claims.connection
        self._worker = worker
        self._limit_seconds = limit_seconds
        self._log_seconds = log_seconds
        self._loaded = loaded
        self._thread = BackgroundThread("preparation news")
        #: Name -> what the jobs were told last, but for figures, and when.
        self._told: dict[str, tuple[tuple[str, str, bool], float]] = {}
        self._logged_at: dict[str, float] = {}
        #: Names whose reading was logged, while it goes on.
        self._reading: set[str] = set()

    def start(self) -> None:
        """Look in the background until `close`."""
        self._thread.repeat(self.look, _ROUND_SECONDS)

    def close(self) -> None:
        """Stop looking."""
        self._thread.close(_STOP_SECONDS)

    def look(self) -> None:
        """Look once at all preparations, and tell what is new."""
        failures, ready = self._prefetcher.failures, set(self._prefetcher.ready)
        preparations = {one.name: one for one in self._prefetcher.preparations}
        try:
            for preparation in preparations.values():
                self._write_log(preparation)
                if preparation.name not in failures:
                    self._tell(preparation)
            self._reading.intersection_update(preparations)
            for name in [name for name in self._told if name not in preparations]:
                if name in ready:
                    self._jobs.tell(Preparation(name=name, state=READY))
                del self._told[name]
            self._end_jobs(failures)
        except RedisError as error:
            _log.warning(
                "the state of preparations was not written to the waiting jobs, Redis does not answer: %s", error
            )

    def _tell(self, preparation: Preparation) -> None:
        """Tell all jobs of a new state, and some of progress; where none needs it, say so to the prefetcher."""
        name, now = preparation.name, time.monotonic()
        news = (preparation.state, preparation.message, preparation.bytes_total is None)
        before, told_at = self._told.get(name, (None, 0.0))
        is_new, is_retry = news != before, preparation.state == RETRYING
        if not is_new and now - told_at < _PROGRESS_SECONDS:
            self._prefetcher.set_needed(name, self._jobs.need(name))
            return
        expired = None
        if is_retry and self._prefetcher.delayed_seconds(name) >= self._limit_seconds:
            message = f"{name} could not be downloaded for {self._limit_seconds:g} s: {preparation.message}"
            expired = JobError.of(FailureCode.FILES_UNAVAILABLE, message)
        heard = self._jobs.tell(
            preparation, to_all=is_new or is_retry, limit_seconds=self._limit_seconds, expired=expired
        )
        is_needed = heard.needing > len(heard.ended)
        self._told[name] = news, now
        self._prefetcher.set_needed(name, is_needed)
        if is_needed and is_retry and not preparation.retry_seconds:
            self._prefetcher.begin(name)
        for other in set(heard.others).difference(self._loaded()):
            self._prefetcher.begin(other)  # claims pass over these jobs, and so do not ask for it
        if heard.ended and expired is not None:
            _log.error("%d jobs failed: %s", len(heard.ended), expired.message)

    def _end_jobs(self, failures: Mapping[str, JobFailed]) -> None:
        """End the jobs that need what cannot be prepared, unless another worker has it."""
        if not failures:
            return
        others = {
            name
            for report in read_workers(self._connection)
            if report.id != self._worker and report.state != "draining"
            for name in (*report.ready, *report.warm)
        }
        for name, failure in failures.items():
            if name not in others:
                ended = self._jobs.fail(name, JobError.of(failure.code, failure.message))
                if ended:
                    _log.error("%d jobs failed: %s", len(ended), failure.message)

    def _write_log(self, preparation: Preparation) -> None:
        now = time.monotonic()
        if preparation.state == READING and preparation.name not in self._reading:
            _log.info("%s: reading its files", preparation.name)
            self._reading.add(preparation.name)
        if preparation.state != FETCHING or preparation.bytes_total is None:
            self._logged_at.pop(preparation.name, None)
            return
        if now - self._logged_at.get(preparation.name, float("-inf")) >= self._log_seconds:
            self._logged_at[preparation.name] = now
            _log.info("%s", preparation.describe())
