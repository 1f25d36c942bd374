"""A thread that keeps a worker's leases alive, reaps those of the dead, and ends a process that hangs.

It runs beside the GPU's work; the claims it is given are thread-safe (a Redis connection a call).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from contracts.metrics import Counters, TotalsWriter
from contracts.queue.leases import Claim, Claims
from contracts.queue.workers import WorkerReport, publish, withdraw
from worker.loop.progress import JobWatch
from worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

#: Exit status of a worker that ended itself because no step came; supervision starts another.
STALLED = 70


class Heartbeat(threading.Thread):
    """Beats three times a lease."""

    def __init__(
        self,
        claims: Claims,
        settings: WorkerSettings,
        account: Callable[[], dict[str, Any]],
        forget: Callable[[str], None],
        tally: Counters,
    ) -> None:
        """`account` gives the fields of the worker's report; `forget` removes what a job has stored.

        What the worker has counted in `tally` is added to the service's totals with each beat.
        """
        super().__init__(name="heartbeat", daemon=True)
        self._claims = claims
        self._settings = settings
        self._account = account
        self._forget = forget
        self._ledger = TotalsWriter(claims.connection, tally)
        # A worker that starts together with a Redis that was away must not judge the leases of that time.
        self._no_reap_before = time.monotonic() + claims.lease_seconds
        # One batch is painted while the one before it is delivered.
        self._held: list[tuple[Sequence[Claim], JobWatch]] = []
        self._lock = threading.Lock()
        self._end = threading.Event()

    def hold(self, batch: Sequence[Claim], watch: JobWatch) -> None:
        """Keep the batch's leases until it is let go."""
        with self._lock:
            self._held.append((batch, watch))

    def let_go(self, watch: JobWatch) -> None:
        """The batch of this watch has ended."""
        with self._lock:
            self._held = [held for held in self._held if held[1] is not watch]

    @property
    def held(self) -> list[Claim]:
        """All claims whose leases are kept."""
        with self._lock:
            return [claim for batch, _ in self._held for claim in batch]

    def run(self) -> None:
        """Beat until told to stop."""
        while not self._end.is_set():
            self.beat()
            self._end.wait(self._claims.lease_seconds / 3)

    def beat(self) -> None:
        """One beat; a Redis that is away only makes it late."""
        try:
            self._extend()
            publish(self._claims.connection, self._report(), self._claims.lease_seconds)
            if time.monotonic() > self._no_reap_before:
                self._reap()
            self._ledger.post()
        except RedisError as error:
            _log.warning("heartbeat not written: %s", error)
            # Leases ran out while Redis was away; their holders get the time to say that they live.
            self._no_reap_before = time.monotonic() + self._claims.lease_seconds
        self._end_if_stalled()

    def stop(self) -> None:
        """End the thread and take the worker's name off the list."""
        self._end.set()
        self.join(5)
        try:
            withdraw(self._claims.connection, self._settings.name)
            self._ledger.post()
        except RedisError:
            _log.warning("Redis is away; the worker's report runs out by itself, its last figures are lost")

    def _extend(self) -> None:
        with self._lock:
            held = list(self._held)
        lost = self._claims.extend([claim for batch, _ in held for claim in batch])
        for batch, watch in held:
            for claim in batch:
                if claim.job.id in lost:
                    # A job that has just ended is not ours any more either, and its watch is done.
                    watch.drop(claim.job.id)

    def _reap(self) -> None:
        requeued, given_up = self._claims.reap()
        if requeued:
            _log.warning("leases of silent workers ran out: %d jobs requeued", requeued)
        for job_id in given_up:
            _log.error("job given up: every worker that took it was lost", extra={"job_id": job_id})
            self._forget(job_id)

    def _report(self) -> WorkerReport:
        account, held = self._account(), self.held
        if held and account["state"] == "idle":
            account["state"] = "busy"
        return WorkerReport(
            id=self._settings.name,
            host=os.uname().nodename,
            current_jobs=[claim.job.id for claim in held],
            **account,
        )

    def _end_if_stalled(self) -> None:
        with self._lock:
            idle_seconds = max((watch.idle_seconds for _, watch in self._held), default=0.0)
        if idle_seconds > self._settings.stall_seconds:
            _log.critical("no step for %.0f s: this process ends itself", idle_seconds)
            os._exit(STALLED)
