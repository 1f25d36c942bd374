"""The RQ worker that claims batches, keeps their leases, and fences their results.

RQ gives the work loop and the worker's registration (`contracts.rq_loop`); claim, lease and end of a job are
`contracts.claims`. Knows nothing of diffusers: what a batch does is `worker.jobs`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from contracts.errors import FailureCode, JobFailed
from contracts.memory.planner import Capacity
from contracts.metrics import Counters
from contracts.queue.client import RUN_FUNCTION
from contracts.queue.leases import Claim, ClaimCriteria, Claims, NotReady, job_context
from contracts.queue.records import JobError
from contracts.queue.rq_worker import DarkroomRqWorker
from contracts.storage import Storage
from worker.generation import generate as jobs
from worker.generation.outputs import JobResult
from worker.generation.warm_up import warm_up
from worker.loop.claim_policy import ClaimPolicy
from worker.loop.completion import JobCompleter
from worker.loop.heartbeat import Heartbeat
from worker.loop.lookahead import PromptLookahead
from worker.loop.prefetch import Prefetcher
from worker.loop.progress import Aborted, JobWatch, Released
from worker.pool.pool import Pool
from worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

_REDIS_PAUSE_SECONDS = 0.5
_FUNCTION_REFUSED = JobError.of(FailureCode.REFUSED_FUNCTION, "the job names a function that is not allowed")


class Consumer(DarkroomRqWorker):
    """One warm process: claims a batch, runs it, ends its jobs, and again until told to stop."""

    def __init__(
        self,
        connection: Redis,
        claims: Claims,
        pool: Pool,
        storage: Storage,
        settings: WorkerSettings,
        model_pixels: Mapping[str, int] | None = None,
        tally: Counters | None = None,
        capacity: Capacity | None = None,
    ) -> None:
        """`connection` returns bytes, as RQ wants it; `model_pixels` is the memory plan's bound of a batch.

        `capacity` is told to those who ask what this worker could run.
        What the worker's parts count in `tally` is posted while it works.
        """
        super().__init__(connection, settings.name)
        self._claims = claims
        tally = Counters() if tally is None else tally
        self._completer = JobCompleter(claims, storage, tally)
        self._pool = pool
        self._storage = storage
        self._settings = settings
        self._capacity = capacity
        self._batch: list[Claim] = []
        self._leave = threading.Event()
        self._warming = True
        self._answer_lost = False
        self._residency = ClaimPolicy(settings.residency_seconds, model_pixels)
        self._deliveries = ThreadPoolExecutor(max_workers=1, thread_name_prefix="delivery")
        self._delivery: Future[None] = self._deliveries.submit(lambda: None)
        self._preparations = Prefetcher(pool.prepare)
        self._foresight = PromptLookahead(pool, lambda: claims.peek(self._wish()))
        self._heartbeat = Heartbeat(claims, settings, self._report_state, self._completer.delete_images, tally)

    def start(self, models: Sequence[str]) -> None:
        """Load the warm list, then work until a signal says stop; returns when the last batch has ended."""
        self._heartbeat.start()
        try:
            for model in models:
                self._warm_up(model)
            self._warming = False
            self._heartbeat.beat()
            self.work(logging_level="WARNING")
        finally:
            self._foresight.close()
            self._deliveries.shutdown()
            self._completer.close()
            self._heartbeat.stop()

    def _warm_up(self, model: str) -> None:
        try:
            self._pool.model(model)
            if self._settings.compile != "off":
                warm_up(self._pool, self._storage, model)
        except JobFailed as failure:
            # A model that cannot be loaded fails its own jobs, by name; the others are served.
            _log.error("%s", failure.message)

    # -- RQ's loop ------------------------------------------------------------------------------------

    def on_stop_signal(self) -> None:
        """The running batch may finish within the grace period; a second signal ends that."""
        if self._stop_requested:
            self._leave.set()
        super().on_stop_signal()
        grace = threading.Timer(self._settings.drain_seconds, self._leave.set)
        grace.daemon = True
        grace.start()

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[RqJob, Queue] | None:
        """Wait for a batch; None once the worker is told to stop."""
        del timeout, max_idle_time
        while not self._stop_requested:
            self._batch = self._claim()
            if self._batch:
                return RqJob(id=self._batch[0].job.id, connection=self.connection), self.queues[0]
            self.rest(self._settings.poll_seconds)
        return None

    def _claim(self) -> list[Claim]:
        try:
            if self._answer_lost:
                self._claims.release_lost(self._heartbeat.held)
                self._answer_lost = False
            return self._fitting(self._allowed(self._claims.claim(self._wish())))
        except NotReady as unready:
            self._preparations.begin(unready.name)
            return []
        except RedisError as error:
            _log.warning("no claim, Redis does not answer: %s", error)
            self._answer_lost = True
            time.sleep(_REDIS_PAUSE_SECONDS)
            return []

    def _wish(self) -> ClaimCriteria:
        put_off, warm = self._preparations.under_way, self._pool.warm
        self._preparations.forget(warm)
        return self._residency.wish(warm, self._settings, {*warm, *self._preparations.done}, put_off)

    def _look_ahead(self) -> None:
        if not self._stop_requested:
            self._foresight.look()

    def execute_job(self, job: RqJob, queue: Queue) -> None:
        """Paint the batch that was claimed; its images are written while the next one is claimed and painted."""
        del job, queue
        batch, self._batch = self._batch, []
        self.show_state(WorkerStatus.BUSY)
        report_seconds = self._settings.report_seconds
        watch = JobWatch(self._claims, batch, self._leave, self._look_ahead, report_seconds)
        self._heartbeat.hold(batch, watch)
        self._residency.enter(batch[0].job.parameters.model)
        with job_context([claim.job for claim in batch]):
            outcomes = self._paint(batch, watch)
        self._foresight.pause()
        # One delivery at a time: a slow storage slows the painting instead of filling the memory.
        self._delivery.result()
        self._delivery = self._deliveries.submit(self._end, batch, watch, outcomes)

    # -- one batch ------------------------------------------------------------------------------------

    def _paint(self, batch: Sequence[Claim], watch: JobWatch) -> Sequence[JobResult]:
        shared = batch[0].job.parameters
        _log.info("batch started", extra={"jobs": len(batch), "model": shared.model, "task": shared.task.value})
        work = [
            jobs.Job(
                id=claim.job.id,
                parameters=claim.job.parameters,
                queue_seconds=(claim.job.started_at or claim.job.created_at) - claim.job.created_at,
            )
            for claim in batch
        ]
        try:
            return jobs.generate(work, self._pool, self._storage, watch, worker_name=self.name)
        except Aborted:
            return [JobResult("lost")] * len(batch)
        except Released:
            return [JobResult("released")] * len(batch)

    def _end(self, batch: Sequence[Claim], watch: JobWatch, outcomes: Sequence[JobResult]) -> None:
        """Runs in the delivery thread."""
        try:
            self._completer.complete(batch, watch, outcomes)
        finally:
            self._heartbeat.let_go(watch)

    def _allowed(self, batch: list[Claim]) -> list[Claim]:
        """Only our one function runs from the queue; a planted job ends here, and is reported."""
        allowed = []
        for claim in batch:
            function = self._function_of(claim.job.id)
            if function == RUN_FUNCTION:
                allowed.append(claim)
                continue
            _log.error("job %s names the function %r: refused", claim.job.id, function)
            self._completer.fail(claim, _FUNCTION_REFUSED)
        return allowed

    def _fitting(self, batch: list[Claim]) -> list[Claim]:
        """What the memory plan has room for at once, adapters included; the rest goes back, unspent."""
        count = self._pool.fitting([claim.job.parameters for claim in batch])
        for claim in reversed(batch[count:]):
            self._claims.release(claim)
        return batch[:count]

    def _function_of(self, job_id: str) -> str | None:
        try:
            return RqJob.fetch(job_id, connection=self.connection, serializer=JSONSerializer).func_name
        except (NoSuchJobError, ValueError, TypeError, KeyError):
            return None

    # -- what the world sees --------------------------------------------------------------------------

    def _report_state(self) -> dict[str, Any]:
        state = "starting" if self._warming else "draining" if self._stop_requested else "idle"
        return {
            "state": state,
            "pid": os.getpid(),
            "capacity": self._capacity,
            "stage_seconds": self._completer.stage_seconds,
            **self._pool.report(),
        }
