"""The worker's loop: claim jobs, serve their calls, complete them. The only room that knows the queue.

Claim, lease and the end of a job are scripts behind `contracts.leases.claims`. Knows no diffusers: what a job
does is `worker.generation`, which of the jobs is served next, `worker.engine`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any

from redis import Redis
from rq.worker import WorkerStatus

from contracts.leases.claim import Claim
from contracts.leases.claims import Claims
from contracts.metrics import Counters
from contracts.processes.rq_registration import RqRegistration
from contracts.processes.shutdown import Shutdown
from contracts.queue.listener import WorkListener
from contracts.redis import keys
from contracts.storage import Storage
from worker.engine.coroutine import Stopped
from worker.engine.engine import Engine
from worker.engine.job import JobInFlight
from worker.engine.policy import FifoPolicy
from worker.generation.outputs import JobResult
from worker.loop.claim_policy import ClaimPolicy
from worker.loop.claimer import Claimer
from worker.loop.completion import JobCompleter
from worker.loop.heartbeat import Heartbeat
from worker.loop.job_work import JobWork, to_job
from worker.loop.lookahead import Lookahead
from worker.loop.prefetch import Prefetcher
from worker.loop.preparation_news import PreparationNews
from worker.loop.progress import JobWatch, ProgressReporter
from worker.loop.storage_outage import StorageOutage
from worker.loop.warm_list import WarmList
from worker.pool.pool import Pool
from worker.runtime.out_of_memory import DeviceFailed
from worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

#: Maximum time for the last step, write and connection to end once the shutdown is overdue.
_SHUTDOWN_GRACE_SECONDS = 30.0
#: How often jobs that wait for others to be written tell the watchdog so.
_WATCHED_SECONDS = 1.0
#: Jobs whose images are being written.
_MAX_UNWRITTEN = 4
#: Numbers of rows that a compiled denoiser is called with: it is compiled for each.
_COMPILED_ROWS = (1, 2, 4, 8, 16)


class Consumer:
    """A warm worker process, from its first claim to its last completed job."""

    def __init__(
        self,
        connection: Redis,
        claims: Claims,
        pool: Pool,
        storage: Storage,
        settings: WorkerSettings,
        counters: Counters | None = None,
    ) -> None:
        """Build the loop; nothing runs before `start`.

        Args:
            connection: for RQ; returns bytes.
            counters: what the worker's parts count; added to the service's totals while it works.
        """
        counters = Counters() if counters is None else counters
        self._pool = pool
        self._settings = settings
        self._warming_up = True
        self._wait_seconds = settings.poll_seconds
        self._registration = RqRegistration(connection, settings.name)
        self._listener = WorkListener(claims.connection, keys.WAKE_JOBS)
        self._shutdown = Shutdown(settings.drain_seconds, on_request=self._listener.wake)
        max_jobs = 1 if settings.scheduling == "fifo" else settings.max_jobs
        self._policy = ClaimPolicy(settings.residency_seconds, max_jobs)
        self._engine = Engine(
            pool,
            policy=FifoPolicy() if settings.scheduling == "fifo" else None,
            max_rows=settings.max_rows,
            lower_tier_share=claims.lower_tier_share,
            buckets=None if settings.compile == "off" else _COMPILED_ROWS,
            on_call=lambda model, rows: counters.observe("call_rows", rows, model=model),
            is_encoded_elsewhere=lambda job_id: self._lookahead.is_encoding(job_id),
        )
        self._watches: dict[str, JobWatch] = {}
        self._completions: list[Future[None]] = []
        self._next_claim_at = 0.0
        self._prefetcher = Prefetcher(
            pool.prepare, on_end=self._listener.wake, is_here=pool.is_here, counters=counters
        )
        self._preparation_news = PreparationNews(
            self._prefetcher, claims, settings.name, settings.download_retry_seconds, loaded=lambda: pool.warm
        )
        self._warm_list = WarmList(pool, self._prefetcher, storage, is_compiled=settings.compile != "off")
        self._outage = StorageOutage(storage, settings.storage_retry_seconds)
        self._work = JobWork(self._engine, pool, storage, self._outage, self._prefetcher, counters, settings.name)
        self._reporter = ProgressReporter(claims, settings.report_seconds)
        self._completer = JobCompleter(
            claims,
            storage,
            counters,
            self._outage,
            self._reporter,
            must_release=lambda: self._shutdown.overdue,
            stopping=lambda: self._shutdown.requested,
        )
        self._heartbeat = Heartbeat(
            claims,
            settings,
            self._report,
            self._completer.delete_images,
            counters,
            lambda: self._engine.idle_seconds,
        )
        self._claimer = Claimer(
            connection, claims, pool, self._prefetcher, self._policy, settings, lambda: self._heartbeat.held_claims
        )
        self._lookahead = Lookahead(pool, self._claimer.peek, self._claimer.prepare)

    def start(self, models: Sequence[str]) -> None:
        """Load the warm models, then run until a signal asks to stop and the last jobs are completed.

        Raises:
            SettingsError: another live worker has this one's name; neither its report nor its leases are touched.
            DeviceFailed: as `run`.
        """
        with self._registration:
            self._heartbeat.start()
            self._reporter.start()
            try:
                self._preparation_news.start()
                self._load_and_run(models)
            finally:
                self._listener.close()
                self._preparation_news.close()
                self._lookahead.close()
                self._completer.close()
                self._reporter.close()
                self._heartbeat.stop()

    def _load_and_run(self, models: Sequence[str]) -> None:
        self._warm_list.start(models)
        self._warming_up = False
        self._heartbeat.beat()
        self._listener.start()
        self._shutdown.install()
        self.run()

    def find_fault(self, hang_seconds: float) -> str | None:
        """Say what is stuck in this worker, for its watchdog; None if nothing is. In any thread."""
        late_seconds = self._shutdown.overdue_seconds
        if late_seconds > _SHUTDOWN_GRACE_SECONDS:
            return f"asked to stop at once {late_seconds:.0f} s ago"
        return self._heartbeat.find_fault(hang_seconds)

    def run(self) -> None:
        """Claim jobs as long as there is room, serve one call after another, complete the jobs that have ended.

        Until a signal asks to stop, and the last job has ended.

        Raises:
            DeviceFailed: the process must end; its jobs are handed back.
        """
        try:
            while not self._shutdown.requested or self._engine.jobs:
                if not self._engine.jobs:
                    self._warm_list.load_prepared()
                self._admit()
                if self._engine.jobs:
                    self._serve()
                elif not self._shutdown.requested:
                    self._wait()
        finally:
            for flight in self._engine.close():
                self._complete(flight)
        for completion in self._completions:
            completion.result()  # a bug there ends the process with an error too
        if self._work.device_failure is not None:
            raise self._work.device_failure

    # -- claim ----------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Claim and start jobs until there is no room, or no job that can run now."""
        if time.monotonic() < self._next_claim_at and not self._listener.was_woken():
            return
        while not self._shutdown.requested:
            claim = self._claim()
            self._next_claim_at = time.monotonic() + self._wait_seconds
            if claim is None:
                return
            self._start(claim)

    def _claim(self) -> Claim | None:
        """The next job; None where there is none, or none may be claimed now."""
        self._wait_seconds = self._settings.poll_seconds
        tiers = [flight.job.tier for flight in self._engine.jobs]
        is_full = not any(self._policy.room(tiers).values()) or not self._engine.residency.has_room
        if is_full or self._engine.blocked_seconds > self._policy.minimum_seconds:
            return None
        if self._registration.is_suspended or not self._outage.is_over():
            return None
        claim = self._claimer.claim(tiers)
        self._wait_seconds = self._claimer.wait_seconds
        return claim

    def _wait(self) -> None:
        self._lookahead.pause()
        self._registration.show(WorkerStatus.IDLE)
        self._listener.wait(max(0.0, self._next_claim_at - time.monotonic()))
        self._next_claim_at = 0.0

    # -- generate -------------------------------------------------------------------------------------

    def _start(self, claim: Claim) -> None:
        """Keep the lease of a job until it is completed, and start it."""
        watch = JobWatch(self._reporter, claim, lambda: self._shutdown.overdue)
        self._reporter.add(watch)
        self._heartbeat.hold(watch)
        self._registration.show(WorkerStatus.BUSY)
        self._policy.enter(claim.job.parameters.model)
        self._watches[claim.job.id] = watch
        if self._engine.jobs:  # that can be served meanwhile
            self._lookahead.expect(claim.job)
        job = to_job(claim.job, self._settings)
        self._engine.start(job, partial(self._work.run, watch), watch.stop_reason)

    def _serve(self) -> None:
        """Have the engine make its next call, and complete the jobs that have ended with it."""
        try:
            ended = self._engine.tick()
        except DeviceFailed as error:
            self._work.note_device_failure(error)
            ended = self._engine.close()
        for flight in self._engine.jobs:
            self._watches[flight.job.id].used_seconds = flight.coroutine.used_seconds
        for flight in ended:
            self._complete(flight)
        if self._work.device_failure is not None:
            for flight in self._engine.close():
                self._complete(flight)
            self._shutdown.request()
        elif not self._shutdown.requested:
            self._lookahead.begin()

    # -- complete -------------------------------------------------------------------------------------

    def _complete(self, flight: JobInFlight) -> None:
        """Store and end a job in the background.

        A few results wait at most: a slow storage slows generation down instead of filling the memory.
        """
        watch = self._watches.pop(flight.job.id)
        self._lookahead.forget(flight.job.id)
        watch.used_seconds = flight.coroutine.used_seconds
        watch.mark_alive()
        result = flight.result
        if result is None:
            error = flight.coroutine.error
            if error is not None and not isinstance(error, Stopped):
                raise error  # a bug, or a `SystemExit` of a library: jobs' own errors are results
            result = JobResult("released" if self._work.device_failure is None else "device_failed")
        self._next_claim_at = 0.0  # there is room
        while len(self._unwritten()) >= _MAX_UNWRITTEN:
            wait(self._completions, _WATCHED_SECONDS, return_when=FIRST_COMPLETED)
            # The watches of the jobs that are being written see whether those hang.
            self._engine.mark_alive()
            watch.mark_alive()
        self._completions.append(self._completer.complete(watch.claim, watch, result))
        self._completions[-1].add_done_callback(lambda _: self._heartbeat.stop_holding(watch))

    def _unwritten(self) -> Sequence[Future[None]]:
        """The jobs that are being completed; raises what ended one of the others."""
        for done in [completion for completion in self._completions if completion.done()]:
            self._completions.remove(done)
            done.result()
        return self._completions

    # -- report ---------------------------------------------------------------------------------------

    def _report(self) -> dict[str, Any]:
        """This worker's fields of its `WorkerReport`."""
        reason = self._outage.reason
        stopping = "draining" if self._shutdown.requested else ""
        return {
            "state": "starting" if self._warming_up else stopping or ("paused" if reason else "idle"),
            "reason": reason,
            "pid": os.getpid(),
            "stage_seconds": self._completer.stage_seconds,
            "preparing": [*self._prefetcher.preparations, *self._warm_list.failures],
            **self._pool.report(),
        }
