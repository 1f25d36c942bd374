"""Keeps a worker's leases alive in the background, reaps those of dead workers, and knows what is stuck.

It runs beside the GPU's work; the claims it is given are thread-safe: each call takes its own Redis connection.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from redis.exceptions import RedisError

from contracts.leases.claim import Claim
from contracts.leases.claims import Claims
from contracts.leases.reaper import Reaper
from contracts.metrics import Counters, TotalsWriter
from contracts.processes.background import BackgroundThread
from contracts.processes.workers import WorkerReport, publish, withdraw
from worker.loop.progress import JobWatch
from worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

_STOP_SECONDS = 5.0


class Heartbeat:
    """A background thread that beats three times per lease."""

    def __init__(
        self,
        claims: Claims,
        settings: WorkerSettings,
        report: Callable[[], dict[str, Any]],
        delete_images: Callable[[str], None],
        counters: Counters,
        idle_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Build it; it beats from `start` on.

        Args:
            report: fields of the worker's report.
            delete_images: deletes the stored images of a job, by its id.
            counters: added to the service's totals with each beat.
            idle_seconds: seconds since the last sign of life of the jobs' thread; 0 while it has no jobs.
        """
        self._claims = claims
        self._settings = settings
        self._report_fields = report
        self._totals = TotalsWriter(claims.connection, counters)
        self._idle_seconds = idle_seconds
        self._held: list[JobWatch] = []
        self._lock = threading.Lock()
        self._thread = BackgroundThread("heartbeat")
        # A storage that is slow or away must not delay the beats.
        self._deletions = BackgroundThread("deletions")
        self._reaper = Reaper(claims, lambda job_id: self._deletions.submit(partial(delete_images, job_id)))
        self._beat_at: float | None = None

    def start(self) -> None:
        """Beat in the background until `stop`."""
        self._beat_at = time.monotonic()
        self._thread.repeat(self.beat, self._claims.lease_seconds / 3)

    def stop(self) -> None:
        """Stop beating and withdraw the worker's report."""
        self._beat_at = None
        self._thread.close(_STOP_SECONDS)
        self._deletions.close(_STOP_SECONDS)
        try:
            withdraw(self._claims.connection, self._settings.name)
            self._totals.flush()
        except RedisError:
            _log.warning("Redis does not answer: the last counts are lost, the worker's report expires by itself")

    def hold(self, watch: JobWatch) -> None:
        """Extend the lease of this job with each beat, until `stop_holding`."""
        with self._lock:
            self._held.append(watch)

    def stop_holding(self, watch: JobWatch) -> None:
        """The job has ended."""
        with self._lock:
            self._held = [other for other in self._held if other is not watch]

    @property
    def held_claims(self) -> list[Claim]:
        """All claims whose leases are extended."""
        with self._lock:
            return [watch.claim for watch in self._held]

    def beat(self) -> None:
        """Extend, report, reap and count once; a Redis that is away only delays this."""
        try:
            self._extend()
            publish(self._claims.connection, self._report(), self._claims.lease_seconds)
            self._reaper.reap()
            self._totals.flush()
        except RedisError as error:
            _log.warning("heartbeat not written: %s", error)
            self._reaper.spare_leases()
        if self._beat_at is not None:
            self._beat_at = time.monotonic()

    def find_fault(self, hang_seconds: float) -> str | None:
        """Say what is stuck: no beat for `hang_seconds`, or no step for `stall_seconds`; None if nothing is."""
        now, beat_at = time.monotonic(), self._beat_at
        # A beat that another error than one of Redis ends each time extends no leases either.
        if beat_at is not None and now - beat_at > hang_seconds + self._claims.lease_seconds / 3:
            return f"no heartbeat for {now - beat_at:.0f} s"
        with self._lock:
            idle_seconds = max((watch.idle_seconds for watch in self._held), default=0.0)
        idle_seconds = max(idle_seconds, self._idle_seconds())
        if idle_seconds > self._settings.stall_seconds:
            return f"no step for {idle_seconds:.0f} s"
        return None

    def _extend(self) -> None:
        with self._lock:
            held = list(self._held)
        lost = self._claims.extend([watch.claim for watch in held])
        for watch in held:
            if watch.claim.job.id in lost:
                # This may be a job that has just ended: its watch is no longer used.
                watch.drop()

    def _report(self) -> WorkerReport:
        fields, held = self._report_fields(), self.held_claims
        if held and fields["state"] == "idle":
            fields["state"] = "busy"
        return WorkerReport(
            id=self._settings.name,
            host=os.uname().nodename,
            current_jobs=[claim.job.id for claim in held],
            **fields,
        )
