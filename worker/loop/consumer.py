"""The worker's loop: claim jobs, generate their images, complete them. The only room that knows the queue.

Claim, lease and the end of a job are scripts behind `contracts.queue.leases`. Knows nothing of diffusers: what
happens between claim and completion is `worker.generation`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

from redis import Redis
from rq.worker import WorkerStatus

from contracts.errors import FailureCode, Unavailable
from contracts.metrics import Counters
from contracts.processes.background import BackgroundThread
from contracts.processes.rq_registration import RqRegistration
from contracts.processes.shutdown import Shutdown
from contracts.queue.leases import Claim, Claims, job_context
from contracts.queue.listener import WorkListener
from contracts.queue.records import JobRecord
from contracts.redis import keys
from contracts.storage import Storage
from worker.checkpoints.places import NotPrepared
from worker.generation.generate import Job, generate
from worker.generation.outputs import JobResult
from worker.loop.claim_policy import ClaimPolicy, ModelPixels
from worker.loop.claimer import Claimer
from worker.loop.completion import JobCompleter
from worker.loop.heartbeat import Heartbeat
from worker.loop.lookahead import Lookahead
from worker.loop.prefetch import Prefetcher
from worker.loop.preparation_news import PreparationNews
from worker.loop.progress import Aborted, JobWatch, Released
from worker.loop.storage_outage import StorageOutage
from worker.loop.warm_list import WarmList
from worker.pool.pool import Pool
from worker.runtime.out_of_memory import DeviceFailed
from worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

#: Maximum time for the last step, write and connection to end once the shutdown is overdue.
_SHUTDOWN_GRACE_SECONDS = 30.0
#: How often jobs that wait for those before them tell the watchdog so.
_WATCHED_SECONDS = 1.0


class Consumer:
    """A warm worker process, from its first claim to its last completed job."""

    def __init__(
        self,
        connection: Redis,
        claims: Claims,
        pool: Pool,
        storage: Storage,
        settings: WorkerSettings,
        model_pixels: ModelPixels = dict,
        counters: Counters | None = None,
    ) -> None:
        """Build the loop; nothing runs before `start`.

        Args:
            connection: for RQ; returns bytes.
            model_pixels: returns model -> pixels that one pipeline call may generate, by the memory plan; asked
                for every claim, since sizes are learned while models are downloaded.
            counters: what the worker's parts count; added to the service's totals while it works.
        """
        counters = Counters() if counters is None else counters
        self._counters = counters
        self._device_failure: DeviceFailed | None = None
        self._claims = claims
        self._pool = pool
        self._storage = storage
        self._settings = settings
        self._warming_up = True
        self._wait_seconds = settings.poll_seconds
        self._registration = RqRegistration(connection, settings.name)
        self._listener = WorkListener(claims.connection, keys.WAKE_JOBS)
        self._shutdown = Shutdown(settings.drain_seconds, on_request=self._listener.wake)
        self._policy = ClaimPolicy(settings.residency_seconds, model_pixels)
        self._prefetcher = Prefetcher(
            pool.prepare, on_end=self._listener.wake, is_here=pool.is_here, counters=counters
        )
        self._preparation_news = PreparationNews(
            self._prefetcher, claims, settings.name, settings.download_retry_seconds, loaded=lambda: pool.warm
        )
        self._warm_list = WarmList(pool, self._prefetcher, storage, is_compiled=settings.compile != "off")
        self._outage = StorageOutage(storage, settings.storage_retry_seconds)
        self._completer = JobCompleter(
            claims,
            storage,
            counters,
            self._outage,
            must_release=lambda: self._shutdown.overdue,
            stopping=lambda: self._shutdown.requested,
        )
        self._completion_thread = BackgroundThread("completion")
        self._progress_thread = BackgroundThread("progress")
        self._completion: Future[None] | None = None
        self._heartbeat = Heartbeat(claims, settings, self._report, self._completer.delete_images, counters)
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
            try:
                self._preparation_news.start()
                self._load_and_run(models)
            finally:
                self._listener.close()
                self._preparation_news.close()
                self._lookahead.close()
                self._completion_thread.close()
                self._progress_thread.close()
                self._completer.close()
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
        """Claim jobs, generate and complete them, wait where there are none; until a signal asks to stop.

        Raises:
            DeviceFailed: the process must end; its jobs are handed back.
        """
        while not self._shutdown.requested:
            self._warm_list.load_prepared()
            claims = self._claim()
            if not claims:
                self._wait()
                continue
            watch = self._watch(claims)
            results = self._generate(claims, watch)
            self._complete(claims, watch, results)
            if self._device_failure is not None:
                raise self._device_failure
        if self._completion is not None:
            self._completion.result()  # a bug there ends the process with an error too

    # -- claim ----------------------------------------------------------------------------------------

    def _claim(self) -> list[Claim]:
        """Jobs for one pipeline call; empty where there are none, or none may be claimed now."""
        if self._registration.is_suspended or not self._outage.is_over():
            self._wait_seconds = self._settings.poll_seconds
            return []
        claims = self._claimer.claim()
        self._wait_seconds = self._claimer.wait_seconds
        return claims

    def _wait(self) -> None:
        self._registration.show(WorkerStatus.IDLE)
        self._listener.wait(self._wait_seconds)

    # -- generate -------------------------------------------------------------------------------------

    def _watch(self, claims: Sequence[Claim]) -> JobWatch:
        """Keep the leases of these jobs until they are completed, and watch their steps."""
        watch = JobWatch(
            self._claims,
            claims,
            lambda: self._shutdown.overdue,
            self._look_ahead,
            self._settings.report_seconds,
            self._progress_thread if self._settings.report_seconds else None,
        )
        self._heartbeat.hold(claims, watch)
        self._registration.show(WorkerStatus.BUSY)
        return watch

    def _generate(self, claims: Sequence[Claim], watch: JobWatch) -> Sequence[JobResult]:
        """Generate the images of all claims in one pipeline call."""
        first = claims[0].job.parameters
        self._policy.enter(first.model)
        jobs = [_to_generation(claim.job) for claim in claims]
        with job_context([claim.job for claim in claims]):
            _log.info("jobs started", extra={"jobs": len(claims), "model": first.model, "task": first.task.value})
            try:
                return self._generate_unless_storage_is_away(jobs, watch)
            except Aborted:
                return [JobResult("lost")] * len(claims)
            except Released:
                return [JobResult("released")] * len(claims)
            except NotPrepared as error:
                # Its files have gone since they were prepared.
                _log.warning("jobs go back to the queue: %s", error)
                self._prefetcher.forget([error.name])
                return [JobResult("released")] * len(claims)
            except DeviceFailed as error:
                self._device_failure = error
                self._counters.count("device_failures")
                return [JobResult("device_failed")] * len(claims)
            finally:
                watch.finish()
                self._lookahead.pause()

    def _generate_unless_storage_is_away(self, jobs: Sequence[Job], watch: JobWatch) -> Sequence[JobResult]:
        """Generate; where an input cannot be read, hand the jobs back in an outage, and try once more in none."""
        for is_last in (False, True):
            try:
                return generate(jobs, self._pool, self._storage, watch, worker_name=self._settings.name)
            except Unavailable as error:
                _log.warning("an input could not be read: %s", error)
                if self._outage.confirms(error):
                    return [JobResult("released")] * len(jobs)
                if is_last:
                    break
        message = "an input could not be read from the storage; the worker's log has the details"
        return [JobResult.failed(FailureCode.INTERNAL, message)] * len(jobs)

    def _look_ahead(self) -> None:
        if not self._shutdown.requested:
            self._lookahead.begin()

    # -- complete -------------------------------------------------------------------------------------

    def _complete(self, claims: Sequence[Claim], watch: JobWatch, results: Sequence[JobResult]) -> None:
        """Store and end the jobs in the background, after those before them.

        At most one set of results waits: a slow storage slows generation down instead of filling the memory.
        """
        if self._completion is not None:
            while not wait([self._completion], _WATCHED_SECONDS).done:
                watch.mark_alive()  # the watch of the jobs before them sees whether those hang
            self._completion.result()
        self._completion = self._completion_thread.submit(
            partial(self._complete_in_background, claims, watch, results)
        )

    def _complete_in_background(
        self, claims: Sequence[Claim], watch: JobWatch, results: Sequence[JobResult]
    ) -> None:
        try:
            self._completer.complete(claims, watch, results)
        finally:
            self._heartbeat.stop_holding(watch)

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


def _to_generation(record: JobRecord) -> Job:
    queue_seconds = (record.started_at or record.created_at) - record.created_at
    return Job(record.id, record.parameters, queue_seconds, record.owner)
