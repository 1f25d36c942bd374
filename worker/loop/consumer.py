"""The worker's loop: claim jobs, serve their calls, complete them. The only room that knows the queue.

Claim, lease and the end of a job are scripts behind `contracts.leases.claims`. Knows no diffusers: what a job
does is `worker.generation`, which of the jobs is served next, `worker.engine`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from rq.worker import WorkerStatus

from contracts.leases.claim import Claim
from contracts.processes.rq_registration import RqRegistration
from contracts.processes.shutdown import Shutdown
from contracts.queue.listener import WorkListener
from contracts.redis import keys
from contracts.requests.parameters import JobParameters
from contracts.requests.training.settings import EIGHT_BIT
from worker.engine.engine import Engine
from worker.engine.policy import FifoPolicy
from worker.loop.claim_policy import ClaimPolicy
from worker.loop.claimer import Claimer
from worker.loop.completion import JobCompleter
from worker.loop.heartbeat import Heartbeat
from worker.loop.job_work import JobWork
from worker.loop.jobs_in_flight import JobsInFlight
from worker.loop.lookahead import Lookahead
from worker.loop.preparation.news import PreparationNews
from worker.loop.preparation.prefetch import Prefetcher
from worker.loop.preparation.warm_list import WarmList
from worker.loop.progress import ProgressReporter
from worker.loop.resources import WorkerResources
from worker.loop.storage_outage import StorageOutage
from worker.runtime.energy import AssumedPower, EnergyMeter, open_counter
from worker.runtime.out_of_memory import DeviceFailed
from worker.training.optimizers import available_optimizers

_log = logging.getLogger(__name__)

#: Maximum time for the last step, write and connection to end once the shutdown is overdue.
_SHUTDOWN_GRACE_SECONDS = 30.0
#: Numbers of rows that a compiled denoiser is called with: it is compiled for each.
_COMPILED_ROWS = (1, 2, 4, 8, 16)


class Consumer:
    """A warm worker process, from its first claim to its last completed job."""

    def __init__(self, resources: WorkerResources) -> None:
        """Build the loop; nothing runs before `start`."""
        self._resources = resources
        self._pool, self._settings = pool, settings = resources.pool, resources.settings
        self._warming_up = True
        self._next_claim_at = 0.0
        self._wait_seconds = settings.poll_seconds

        self._registration = RqRegistration(resources.connection, settings.name)
        self._listener = WorkListener(resources.claims.connection, keys.WAKE_JOBS)
        self._shutdown = Shutdown(settings.drain_seconds, on_request=self._listener.wake)

        self._prefetcher = self._build_prefetcher()
        self._preparation_news = self._build_preparation_news()
        self._warm_list = WarmList(pool, self._prefetcher, is_compiled=settings.compile != "off")

        self._outage = StorageOutage(resources.storage, settings.storage_retry_seconds)
        self._reporter = ProgressReporter(resources.claims, settings.report_seconds)
        self._completer = self._build_completer()
        self._heartbeat = self._build_heartbeat()

        self._policy = ClaimPolicy(settings.residency_seconds, settings.jobs_in_flight, settings.training)
        self._claimer = self._build_claimer()
        self._lookahead = Lookahead(pool, self._claimer.peek, self._claimer.prepare)

        self._engine = self._build_engine()
        self._jobs = self._build_jobs()

    # -- parts ----------------------------------------------------------------------------------------

    def _build_prefetcher(self) -> Prefetcher:
        return Prefetcher(
            self._pool.prepare,
            on_end=self._listener.wake,
            is_here=self._pool.fetcher.is_here,
            counters=self._resources.counters,
        )

    def _build_preparation_news(self) -> PreparationNews:
        return PreparationNews(
            self._prefetcher,
            self._resources.claims,
            self._settings.name,
            self._settings.download_retry_seconds,
            loaded=lambda: [*self._pool.warm, EIGHT_BIT],  # nothing prepares an optimizer
        )

    def _build_completer(self) -> JobCompleter:
        return JobCompleter(
            self._resources.claims,
            self._resources.storage,
            self._resources.counters,
            self._outage,
            self._reporter,
            must_release=lambda: self._shutdown.overdue,
            stopping=lambda: self._shutdown.requested,
            credentials=self._resources.credentials,
            receipt_signer=self._resources.receipt_signer,
            safety=self._resources.safety,
            tracing=self._resources.tracing,
        )

    def _build_heartbeat(self) -> Heartbeat:
        return Heartbeat(
            self._resources.claims,
            self._settings,
            self._report,
            self._completer.delete_images,
            self._resources.counters,
            idle_seconds=lambda: self._engine.idle_seconds,
        )

    def _build_claimer(self) -> Claimer:
        return Claimer(
            self._resources, self._prefetcher, self._policy, held_claims=lambda: self._heartbeat.held_claims
        )

    def _build_engine(self) -> Engine:
        settings, counters = self._settings, self._resources.counters
        return Engine(
            self._pool,
            policy=FifoPolicy() if settings.scheduling == "fifo" else None,
            max_rows=settings.max_rows,
            lower_tier_share=self._resources.claims.lower_tier_share,
            buckets=None if settings.compile == "off" else _COMPILED_ROWS,
            on_call=lambda model, rows: counters.observe("call_rows", rows, model=model),
            is_encoded_elsewhere=self._lookahead.is_encoding,
        )

    def _build_jobs(self) -> JobsInFlight:
        work = JobWork(self._engine, self._resources, self._outage, self._prefetcher)
        return JobsInFlight(
            self._engine,
            work,
            self._lookahead,
            self._reporter,
            self._heartbeat,
            self._completer,
            self._settings,
            self._build_energy_meter(),
            must_release=lambda: self._shutdown.overdue,
            stopping=lambda: self._shutdown.requested,
            note_load_failure=self._warm_list.note_job_failure,
        )

    def _build_energy_meter(self) -> EnergyMeter:
        device, settings = self._pool.device, self._settings
        # A card that several workers share counts for all of them.
        counter = open_counter(device) if settings.budget_bytes is None else None
        return EnergyMeter(AssumedPower.of(device, settings.flops_per_joule, settings.watts), counter)

    # -- life -----------------------------------------------------------------------------------------

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
            except DeviceFailed:
                if self._jobs.device_failure is None:  # it was a model of the list that failed, and no job
                    self._resources.counters.count("device_failures")
                raise
            finally:
                self._listener.close()
                self._preparation_news.close()
                self._lookahead.close()
                self._completer.close()
                self._reporter.close()
                self._heartbeat.stop()

    def _load_and_run(self, models: Sequence[str]) -> None:
        self._shutdown.install(exits=True)  # to load and compile the models may take minutes
        self._warm_list.start(models)
        self._shutdown.install()
        self._warming_up = False
        self._heartbeat.beat()
        self._listener.start()
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
            DeviceFailed: the process must end; its jobs are released.
            Exception: a bug ends the process with an error, too; the other jobs have been completed.
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
            self._jobs.close()
        if self._jobs.device_failure is not None:
            raise self._jobs.device_failure

    # -- claim ----------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Claim and start jobs until the worker is full or no waiting job can run now."""
        if time.monotonic() < self._next_claim_at and not self._listener.was_woken():
            return
        while not self._shutdown.requested:
            claim = self._claim()
            self._next_claim_at = time.monotonic() + self._wait_seconds
            if claim is None:
                return
            self._registration.show(WorkerStatus.BUSY)
            if isinstance(claim.job.parameters, JobParameters):  # others run beside whatever model is loaded
                self._policy.enter(claim.job.parameters.model)
            self._jobs.start(claim)

    def _claim(self) -> Claim | None:
        """The next job; None where there is none, or none may be claimed now."""
        self._wait_seconds = self._settings.poll_seconds
        tiers = [flight.job.tier for flight in self._engine.jobs]
        is_full = not any(self._policy.room(tiers).values()) or not self._engine.residency.memory.has_room
        if is_full or self._engine.blocked_seconds > self._policy.minimum_seconds:
            return None
        if not self._outage.is_over():
            return None
        claim = self._claimer.claim(tiers)
        self._wait_seconds = self._claimer.wait_seconds
        return claim

    def _wait(self) -> None:
        self._lookahead.pause()
        self._registration.show(WorkerStatus.SUSPENDED if self._claimer.is_suspended else WorkerStatus.IDLE)
        self._listener.wait(max(0.0, self._next_claim_at - time.monotonic()))
        self._next_claim_at = 0.0

    # -- serve ----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Serve one call; the queue is asked again where jobs have ended, since there is room."""
        if self._jobs.serve():
            self._next_claim_at = 0.0
        if self._jobs.device_failure is not None:
            self._shutdown.request()
        elif not self._shutdown.requested:
            self._lookahead.begin()

    # -- report ---------------------------------------------------------------------------------------

    def _report(self) -> dict[str, Any]:
        """This worker's fields of its `WorkerReport`."""
        reason = self._outage.reason
        stopping = "draining" if self._shutdown.requested else ""
        pool = self._pool.report()
        return {
            "state": "starting" if self._warming_up else stopping or ("paused" if reason else "idle"),
            "reason": reason,
            "pid": os.getpid(),
            "max_jobs": self._policy.max_jobs,
            "max_rows": self._settings.max_rows,
            "joins_seeds": self._settings.may_join(None),
            "trains": self._settings.training != "never",
            "stage_seconds": self._completer.stage_seconds,
            "preparing": [*self._prefetcher.preparations, *self._warm_list.failures],
            **pool,
            "ready": [*pool["ready"], *available_optimizers()],
        }
