"""How jobs end: images stored, the record closed behind the fence, files of lost attempts removed.

Runs while the next jobs are generated. Knows no pipelines and no RQ.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from contracts.errors import Unavailable
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.log_context import job_context
from contracts.jobs.receipt import Receipt
from contracts.jobs.records import JobState
from contracts.jobs.spans import Attempt, trace_attempt
from contracts.leases.claim import Claim, Verdict
from contracts.leases.claims import Claims
from contracts.metrics import Counters
from contracts.provenance.kept_latents import latents_key
from contracts.safety import flagged_key
from contracts.storage import Storage
from contracts.tracing.tracing import NO_TRACING, Tracing
from worker.generation.results.outputs import JobResult, store
from worker.loop.progress import JobWatch, ProgressReporter
from worker.loop.storage_outage import StorageOutage
from worker.safety.stage import SafetyStage

if TYPE_CHECKING:  # their packages are an extra
    from contracts.provenance.credentials import ContentCredentials
    from contracts.provenance.receipts.signatures import ReceiptSigner

_log = logging.getLogger(__name__)

#: Jobs that are stored concurrently: most of the time is spent waiting for the storage.
_WRITERS = 4
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0
#: How long a process that is stopping waits for Redis: longer than a restart of Redis takes.
_STOPPING_PATIENCE_SECONDS = 20.0


class JobCompleter:
    """Completer of one worker's jobs: stores their images and writes how each ended.

    Attributes:
        stage_seconds: stage -> seconds that the completed jobs have spent in it.
    """

    def __init__(
        self,
        claims: Claims,
        storage: Storage,
        counters: Counters,
        outage: StorageOutage,
        reporter: ProgressReporter,
        must_release: Callable[[], bool] = lambda: False,
        stopping: Callable[[], bool] = lambda: False,
        credentials: ContentCredentials | None = None,
        receipt_signer: ReceiptSigner | None = None,
        safety: SafetyStage | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """Build it.

        Args:
            tracing: writes the spans of each attempt, once it has ended.
            credentials: signs the images; None: they are not signed.
            receipt_signer: signs their receipts; None: they are not signed.
            safety: checks the images before they are stored; None: they are not checked.
            must_release: asked while images wait for the storage: whether their jobs go back to the queue.
            stopping: whether the process was asked to stop, so that no write to Redis is retried forever.
        """
        self._claims = claims
        self._reporter = reporter
        self._stopping = stopping
        self._credentials, self._receipt_signer, self._tracing = credentials, receipt_signer, tracing
        self._safety = safety
        self._storage = storage
        self._outage = outage
        self._must_release = must_release
        self._counters = counters
        self.stage_seconds: dict[str, float] = {}
        self._stages_lock = threading.Lock()
        self._writers = ThreadPoolExecutor(max_workers=_WRITERS, thread_name_prefix="writer")

    def close(self) -> None:
        """Wait for the jobs that are being written; no job can be completed afterwards."""
        self._writers.shutdown()

    def complete(self, claim: Claim, watch: JobWatch, result: JobResult) -> Future[None]:
        """Begin to store a job's images and write its end; that waits for the storage and for Redis while they are
        away.
        """
        return self._writers.submit(self._complete_job, claim, watch, result)

    def delete_images(self, folder: str, keep: Collection[str] = ()) -> None:
        """Delete the stored images of a job (`ID`) or of one attempt (`ID/ATTEMPT`), except the keys to keep."""
        try:
            for key in self._storage.find(f"images/{folder}/"):
                if key not in keep:
                    self._storage.delete(key)
        except Unavailable as error:
            _log.warning("images of %s were not deleted: %s", folder, error)

    def _complete_job(self, claim: Claim, watch: JobWatch, result: JobResult) -> None:
        with job_context([claim.job]):
            self._reporter.finish(watch)
            if result.status == "generated" and watch.verdict is None:
                with watch.stages.timed("write"):
                    result = self._store(claim, watch, result)
            write = partial(self._write, claim, watch, result)
            retry_until_written(write, self._stopping)

    def _store(self, claim: Claim, watch: JobWatch, result: JobResult) -> JobResult:
        """Store the images; hand the job back where the storage has not taken them in time.

        A job whose image cannot be encoded fails.
        """

        started_at = time.monotonic()

        def may_wait() -> bool:
            watch.mark_alive()
            if self._stopping() and time.monotonic() - started_at > _STOPPING_PATIENCE_SECONDS:
                return False
            return watch.verdict is None and not self._must_release()

        try:
            writer = _PatientWriter(self._outage, may_wait)
            credentials = self._credentials
            if credentials is not None and not credentials.signs_for(claim.job.api_key):
                credentials = None
            if result.receipt is not None:
                result = replace(result, receipt=result.receipt.model_copy(update={"energy": watch.energy}))
            if self._safety is not None:
                result = self._safety.apply(result, claim.job.id, writer)
            return store(result, claim.job.id, claim.job.attempts, writer, credentials, self._receipt_signer)
        except Unavailable as error:
            _log.warning("images not stored: %s", error)
            unstored = JobResult("released")
        except JobFailed as failure:
            _log.log(
                logging.INFO if failure.code is FailureCode.FLAGGED else logging.ERROR,
                "%s",
                failure.message,
                exc_info=failure.code is not FailureCode.FLAGGED,
            )
            unstored = JobResult.failed(failure.code, failure.message)
        # While the lease is held: the next attempt writes to the same folder.
        self.delete_images(f"{claim.job.id}/{claim.job.attempts}")
        return unstored

    def _write(self, claim: Claim, watch: JobWatch, result: JobResult) -> None:
        final = _final(result, watch.verdict)
        status = self._close(claim, watch, final)
        if status != "lost":
            model, energy = claim.job.parameters.model, watch.energy
            self._counters.count("device_seconds", watch.used_seconds, model=model)
            if energy is not None:
                self._counters.count("energy_joules", energy.joules, model=model, source=energy.source)
        code = final.error.code.value if status == "failed" and final.error is not None else ""
        trace_attempt(self._tracing, Attempt(claim.job, watch.stages, status, code))
        details: dict[str, object] = {"status": status, "attempt": claim.job.attempts}
        details |= {**claim.job.parameters.for_log(), "seconds": round(watch.used_seconds, 4)}
        if status == "failed" and final.error is not None:
            details |= {"code": final.error.code.value, "error": final.error.message}
        if result.receipt is not None:
            details["timings"] = result.receipt.timings
            if status == "completed":
                self._count_stages(result.receipt)
        if result.stored:
            self._delete_lost_attempts(claim, result, status == "completed")
        level = logging.WARNING if status in ("failed", "lost") else logging.INFO
        _log.log(level, "job %s", status, extra=details)

    def _close(self, claim: Claim, watch: JobWatch, result: JobResult) -> str:
        """Write the end of a job; return how it ended: `lost` if another worker owns it and nothing was written.

        A cancel or a deadline that came while the images were decoded and stored wins over a completed result.
        """
        used_seconds, energy = watch.used_seconds, watch.energy
        if result.status == "completed" and result.receipt is not None:
            images, measured = list(result.stored), result.measured
            ended = self._claims.complete(
                claim, images, result.receipt, used_seconds=used_seconds, energy=energy, measured=measured
            )
            return ended or "lost"
        if result.status == "failed" and result.error is not None:
            return self._claims.fail(claim, result.error, used_seconds=used_seconds, energy=energy) or "lost"
        if result.status == "cancelled":
            ended = self._claims.finish(claim, JobState.CANCELLED, used_seconds=used_seconds, energy=energy)
            return ended or "lost"
        if result.status in ("released", "device_failed"):
            device_failed = result.status == "device_failed"
            is_released = self._claims.release(
                claim, device_failed=device_failed, used_seconds=used_seconds, energy=energy
            )
            return result.status if is_released else "lost"
        return "lost"

    def _count_stages(self, receipt: Receipt) -> None:
        model, task, parameters = receipt.parameters.model, receipt.parameters.task, receipt.parameters
        self._counters.count("images", len(parameters.seeds), model=model)
        self._counters.count("pixels", parameters.pixels, model=model)
        steps = parameters.expected_steps * parameters.num_images
        self._counters.count("image_steps", steps, model=model)
        for stage, seconds in receipt.timings.items():
            self._counters.observe("stage_seconds", seconds, stage=stage, model=model, task=task)
        with self._stages_lock:
            stages = dict.fromkeys((*self.stage_seconds, *receipt.timings))
            # A new dictionary: the heartbeat's thread may be reading the old one.
            self.stage_seconds = {
                stage: round(self.stage_seconds.get(stage, 0.0) + receipt.timings.get(stage, 0.0), 4)
                for stage in stages
            }

    def _delete_lost_attempts(self, claim: Claim, result: JobResult, completed: bool) -> None:
        """Delete this attempt's images unless they count, and those of earlier attempts once they do."""
        if not completed:
            self.delete_images(f"{claim.job.id}/{claim.job.attempts}")
        elif claim.job.attempts > 1:
            others = {flagged_key(claim.job.id, number) for number, _ in enumerate(result.stored)}
            others.add(latents_key(claim.job.id, claim.job.attempts))
            self.delete_images(claim.job.id, keep={image.key for image in result.stored} | others)


@dataclass(frozen=True)
class _PatientWriter:
    """Writer of one job's images that waits through an outage, for as long as they are wanted."""

    outage: StorageOutage
    may_wait: Callable[[], bool]

    def write(self, key: str, data: bytes) -> None:
        self.outage.write(key, data, self.may_wait)


def _final(result: JobResult, verdict: Verdict | None) -> JobResult:
    """The result, unless the job was cancelled, ran past its deadline or for too long, or was lost meanwhile."""
    if verdict == "cancel":
        return JobResult("cancelled")
    if verdict == "deadline":
        return JobResult.failed(FailureCode.DEADLINE_EXCEEDED, "the deadline passed while the job was running")
    if verdict == "overtime":
        message = "the job ran for longer than this service allows; send it with fewer steps or images"
        return JobResult.failed(FailureCode.DURATION_EXCEEDED, message)
    return result if verdict is None else JobResult("lost")


def retry_until_written(write: Callable[[], object], stopping: Callable[[], bool]) -> None:
    """Repeat a write until Redis answers; if the lease has expired by then, the fence makes it a no-op.

    A process that is stopping does not wait for a Redis that may be gone for good: after a while it gives up the
    result, and the job, whose lease expires, runs again on another worker.
    """
    started_at, pause_seconds = time.monotonic(), _FIRST_PAUSE_SECONDS
    while True:
        try:
            write()
            return
        except RedisError as error:
            if stopping() and time.monotonic() - started_at > _STOPPING_PATIENCE_SECONDS:
                _log.error("result not written and discarded, since this process must stop: %s", error)
                return
            _log.warning("result not written, trying again: %s", error)
            time.sleep(pause_seconds)
            pause_seconds = min(_LONGEST_PAUSE_SECONDS, pause_seconds * 2)
