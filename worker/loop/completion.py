"""How jobs end: images written, the record closed behind the fence, nothing left of what was in vain.

Runs beside the painting of the next batch. Knows no pipelines and no RQ.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from redis.exceptions import RedisError

from contracts.errors import RETRYABLE, FailureCode, JobFailed, Unavailable
from contracts.metrics import Counters
from contracts.queue.leases import Claim, Claims, job_context
from contracts.queue.records import JobError, JobState, Receipt
from contracts.storage import Storage
from worker.generation.outputs import Generated, Stored, store
from worker.loop.progress import BatchWatch, Released

_log = logging.getLogger(__name__)

#: What became of a job: its pictures, its images, a failure, nothing, or back to the queue with it.
Outcome = Generated | Stored | JobFailed | Released | None

_DEADLINE_PASSED = JobFailed(FailureCode.DEADLINE_EXCEEDED, "the deadline passed while the job ran")
#: Jobs of one batch that are written at the same time: what takes long is the storage's answer.
_WRITERS = 4
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0


class JobCompleter:
    """Ends the jobs of one worker.

    Attributes:
        stage_seconds: stage -> seconds that the completed jobs have spent in it.
    """

    def __init__(self, claims: Claims, storage: Storage, tally: Counters) -> None:
        self._claims = claims
        self._storage = storage
        self._tally = tally
        self.stage_seconds: dict[str, float] = {}
        self._counting = threading.Lock()
        self._writers = ThreadPoolExecutor(max_workers=_WRITERS, thread_name_prefix="writer")

    def close(self) -> None:
        """Wait for what is being written; after this nothing ends."""
        self._writers.shutdown()

    def end_all(self, batch: Sequence[Claim], watch: BatchWatch, outcomes: Sequence[Outcome]) -> None:
        """Write the images of each job of a batch, and end it, however long Redis is away."""
        call = next((one.receipt for one in outcomes if isinstance(one, Generated)), None)
        if call is not None:
            self._tally.observe("batch_images", call.batch_images, model=call.model.id)
        jobs = zip(batch, outcomes, strict=True)
        ends = [self._writers.submit(self._end_one, claim, watch, outcome) for claim, outcome in jobs]
        for end in ends:
            end.result()

    def fail(self, claim: Claim, failure: JobFailed) -> bool:
        """End a job as failed, in words for its client; False when it was no longer ours. Raises RedisError."""
        error = JobError(code=failure.code, message=failure.message, retryable=RETRYABLE[failure.code])
        return self._claims.fail(claim, error)

    def forget_images(self, folder: str, kept: Collection[str] = ()) -> None:
        """Remove what was stored for a job (`ID`) or one of its attempts (`ID/ATTEMPT`), but for what is kept."""
        try:
            for key in self._storage.find(f"images/{folder}/"):
                if key not in kept:
                    self._storage.delete(key)
        except Unavailable as error:
            _log.warning("images of %s are left behind: %s", folder, error)

    def _end_one(self, claim: Claim, watch: BatchWatch, outcome: Outcome) -> None:
        with job_context([claim.job]):
            if isinstance(outcome, Generated) and claim.job.id not in watch.verdicts:
                outcome = store(outcome, self._storage)
            retry_until_written(partial(self._end, claim, outcome, watch.verdicts.get(claim.job.id)))

    def _end(self, claim: Claim, outcome: Outcome, verdict: str | None) -> None:
        became = self._close(claim, outcome, verdict)
        about: dict[str, object] = {"became": became, "attempt": claim.job.attempts}
        if became == "failed" and isinstance(outcome, JobFailed):
            about["code"] = outcome.code.value
        if isinstance(outcome, Stored):
            about["timings"] = outcome.receipt.timings
            if became == "completed":
                self._count_stages(outcome.receipt)
            self._tidy(claim, outcome, became == "completed")
        is_loss = became in ("failed", "lost")
        _log.log(logging.WARNING if is_loss else logging.INFO, "job %s", became, extra=about)

    def _close(self, claim: Claim, outcome: Outcome, verdict: str | None) -> str:
        """Write how the job ended; returns it in a word: `lost` where that was no longer ours to say."""
        if verdict == "cancel":
            became, is_ours = "cancelled", self._claims.finish(claim, JobState.CANCELLED)
        elif verdict == "deadline":
            became, is_ours = "failed", self.fail(claim, _DEADLINE_PASSED)
        elif verdict is not None:
            became, is_ours = "lost", False
        elif isinstance(outcome, Released):
            became, is_ours = "handed back", self._claims.release(claim)
        elif isinstance(outcome, JobFailed):
            became, is_ours = "failed", self.fail(claim, outcome)
        elif isinstance(outcome, Stored):
            became, is_ours = "completed", self._claims.complete(claim, outcome.images, outcome.receipt)
        else:
            became, is_ours = "lost", False
        return became if is_ours else "lost"

    def _count_stages(self, receipt: Receipt) -> None:
        model, task = receipt.parameters.model, receipt.parameters.task
        for stage, seconds in receipt.timings.items():
            self._tally.observe("stage_seconds", seconds, stage=stage, model=model, task=task)
        with self._counting:
            stages = dict.fromkeys((*self.stage_seconds, *receipt.timings))
            # A new dictionary: the heartbeat's thread may be reading the old one.
            self.stage_seconds = {
                stage: round(self.stage_seconds.get(stage, 0.0) + receipt.timings.get(stage, 0.0), 4)
                for stage in stages
            }

    def _tidy(self, claim: Claim, done: Stored, won: bool) -> None:
        """Remove what this attempt wrote for nothing, or what earlier ones left when they were lost."""
        if not won:
            self.forget_images(f"{claim.job.id}/{claim.job.attempts}")
        elif claim.job.attempts > 1:
            self.forget_images(claim.job.id, kept={image.key for image in done.images})


def retry_until_written(write: Callable[[], object]) -> None:
    """Say it until Redis has heard it; where the lease ran out meanwhile, the fence makes it a no-op."""
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        try:
            write()
            return
        except RedisError as error:
            _log.warning("result not written yet: %s", error)
            time.sleep(pause_seconds)
            pause_seconds = min(_LONGEST_PAUSE_SECONDS, pause_seconds * 2)
