"""The work of a claimed job's coroutine: generate, and report the result in terms of the queue.

Knows the errors of storage, hub and device that send a job back; knows no leases and no order of jobs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from contracts.errors import Unavailable
from contracts.jobs.failures import FailureCode
from contracts.jobs.log_context import job_context
from contracts.jobs.records import JobRecord
from contracts.logs import FOR_MACHINES
from worker.checkpoints.places import NotPrepared
from worker.engine.engine import Engine
from worker.engine.job import Job, JobInFlight
from worker.generation.results.outputs import JobResult
from worker.loop.claim_policy import TIERS
from worker.loop.preparation.prefetch import Prefetcher
from worker.loop.progress import Aborted, JobWatch, Released
from worker.loop.resources import WorkerResources
from worker.loop.storage_outage import StorageOutage
from worker.runtime.out_of_memory import DeviceFailed
from worker.settings import WorkerSettings
from worker.tasks.attempt import Attempt
from worker.tasks.runs import run_task

_log = logging.getLogger(__name__)

#: A clock that differs by more was set, or is another server's after a failover.
_CLOCK_STEP_SECONDS = 1.0


class JobWork:
    """The work of one worker's jobs.

    Attributes:
        device_failure: what ended the device; None while it works.
    """

    def __init__(
        self, engine: Engine, resources: WorkerResources, outage: StorageOutage, prefetcher: Prefetcher
    ) -> None:
        self.device_failure: DeviceFailed | None = None
        self._engine = engine
        self._resources = resources
        self._outage = outage
        self._prefetcher = prefetcher

    def run(self, watch: JobWatch, flight: JobInFlight) -> JobResult:
        """The work of a job's coroutine."""
        job = watch.claim.job
        with job_context([job]):
            _log.info("job started", extra={**job.parameters.for_log(), **FOR_MACHINES})
            try:
                return self._generate_unless_storage_is_away(watch, flight)
            except Aborted:
                return JobResult("lost")
            except Released:
                return JobResult("released")
            except NotPrepared as error:
                # Its files have gone since they were prepared.
                _log.warning("the job goes back to the queue: %s", error)
                self._prefetcher.forget([error.name])
                return JobResult("released")
            except DeviceFailed as error:
                self.note_device_failure(error)
                return JobResult("device_failed")

    def _generate_unless_storage_is_away(self, watch: JobWatch, flight: JobInFlight) -> JobResult:
        """Generate; where an input cannot be read, hand the job back in an outage, and try once more in none."""
        safety = self._resources.safety
        for is_last in (False, True):
            pool, storage, name = self._resources.pool, self._resources.storage, self._resources.settings.name
            attempt = Attempt(
                flight, self._engine, pool, storage, watch, name, watch.stages.note,
                hashes_steps=self._resources.receipt_signer is not None,
                may_show=None if safety is None else safety.may_show(flight.job.parameters.model),
                connection=self._resources.claims.connection,
            )  # fmt: skip
            try:
                return run_task(attempt)
            except Unavailable as error:
                _log.warning("an input could not be read: %s", error)
                if self._outage.confirms(error):
                    return JobResult("released")
                if is_last:
                    break
        message = "an input could not be read from the storage; the worker's log has the details"
        return JobResult.failed(FailureCode.INTERNAL, message)

    def note_device_failure(self, error: DeviceFailed) -> None:
        """The device no longer works: the process must end."""
        if self.device_failure is None:
            self.device_failure = error
            self._resources.counters.count("device_failures")


class QueueClock:
    """The queue's clock, by this process' own: one offset for all jobs, so that they stay in their order.

    An offset for each claim would differ by what reading its answer took, and turn round jobs of the same moment.
    """

    def __init__(self, own_clock: Callable[[], float] = time.monotonic) -> None:
        self._own_clock = own_clock
        self._offset_seconds: float | None = None

    def local(self, at: float, now: float) -> float:
        """When something was, on this process' clock.

        Args:
            at: seconds since 1970 on Redis' clock.
            now: what that clock showed just now.
        """
        offset = self._own_clock() - now
        if self._offset_seconds is None or abs(offset - self._offset_seconds) > _CLOCK_STEP_SECONDS:
            self._offset_seconds = offset
        return at + self._offset_seconds


def to_job(record: JobRecord, settings: WorkerSettings, clock: QueueClock) -> Job:
    """A claimed job as the engine runs it; its times become those of this process' clock."""
    parameters, started_at = record.parameters, record.started_at or record.created_at
    return Job(
        id=record.id,
        parameters=parameters,
        queue_seconds=started_at - record.created_at,
        owner=record.owner,
        tier=TIERS.index(record.priority),
        exact=not settings.may_join(parameters.batchable),
        accepted_at=clock.local(record.created_at, started_at),
        deadline_at=None if record.deadline_at is None else clock.local(record.deadline_at, started_at),
    )
