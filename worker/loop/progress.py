"""Watches jobs in flight: writes their progress, reads cancels and deadlines; one round trip for all of them.

The steps go on meanwhile: what a report brings is heeded before the job's next call. Knows claims, but no
diffusers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from contracts.jobs.events import Preview
from contracts.jobs.receipt import Energy
from contracts.jobs.records import CheckpointRecord, Progress
from contracts.jobs.spans import Stages
from contracts.leases.claim import Claim, Report, Verdict
from contracts.leases.claims import Claims
from contracts.processes.background import BackgroundThread
from contracts.redis.connection import redis_errors_are_unavailable

_log = logging.getLogger(__name__)

#: After a failed write to Redis, nothing is written for this long.
_REDIS_PAUSE_SECONDS = 1.0
#: Jobs without news are asked about this often: they may have been cancelled while they load or pause.
_QUIET_SECONDS = 1.0


class Aborted(BaseException):
    """Exception for a job that does not go on: cancelled, past its deadline, or another worker's by now."""


class Released(BaseException):
    """Exception for a job that goes back to the queue, because its worker must stop now."""


class JobWatch:
    """The progress of one job in flight, and why it does not go on.

    Attributes:
        verdict: why it was dropped; None while it goes on.
        used_seconds: of worker time, by its execution so far.
        metered_seconds: those of them whose energy is known.
        energy: of these; None before the first.
        flops: floating-point operations of its execution so far; None where not all are known.
        stages: those of its execution so far, for its trace.
    """

    def __init__(
        self, reporter: ProgressReporter, claim: Claim, must_release: Callable[[], bool] = lambda: False
    ) -> None:
        """`must_release`: asked before each call: whether the job goes back to the queue."""
        self.verdict: Verdict | None = None
        self.used_seconds = self.metered_seconds = 0.0
        self.energy: Energy | None = None
        self.flops: float | None = None
        self.stages = Stages()
        self.claim = claim
        self._reporter = reporter
        self._must_release = must_release
        self._news: Progress | None = None
        # Apart from reports, because a Redis whose memory is full refuses previews only.
        self._no_preview_before = 0.0
        self._alive_at: float | None = None

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last sign of life of a job that has left the engine; 0 before that."""
        return 0.0 if self._alive_at is None else time.monotonic() - self._alive_at

    def mark_alive(self) -> None:
        """The job has left the engine, and waits for something that is being watched."""
        self._alive_at = time.monotonic()

    def stop_reason(self) -> BaseException | None:
        """What must be thrown into the job's coroutine now, if anything."""
        if self.verdict is not None:
            return Aborted()
        return Released() if self._must_release() else None

    def step(self, step: int, steps: int) -> None:
        """Called after each denoising step, counted from 1."""
        # Without an estimate of its end: the API makes one for everybody who asks, of all jobs and workers.
        self.stages.steps = step
        self._news = _progress(step, steps)
        self._reporter.note_news()

    def train_step(self, step: int, steps: int, loss: float | None) -> None:
        """Called after each step of a training, like `step`; without a loss when it resumes from a checkpoint."""
        self.stages.steps = step
        shown = None if loss is None else round(loss, 6)
        self._news = _progress(step, steps, shown)
        self._reporter.note_news()

    @property
    def checkpoint(self) -> str | None:
        """Storage key of the training's newest checkpoint when the job was claimed; None without one."""
        checkpoint = self.claim.job.checkpoint
        return None if checkpoint is None else checkpoint.key

    def keep_checkpoint(self, key: str, step: int, steps: int) -> None:
        """Have the job hold a checkpoint that was written after this step; in any thread.

        Raises:
            Unavailable: Redis does not answer.
        """
        checkpoint = CheckpointRecord(key=key, progress=_progress(step, steps))
        with redis_errors_are_unavailable():
            self._reporter.claims.keep_checkpoint(self.claim, checkpoint)

    def preview(self, preview: Preview) -> None:
        """Publish a preview; in any thread. A preview that cannot be written is dropped."""
        if self.verdict is not None or time.monotonic() < self._no_preview_before:
            return
        try:
            self._reporter.claims.preview(self.claim, preview)
        except RedisError as error:
            _log.warning("preview not written: %s", error)
            self._no_preview_before = time.monotonic() + _REDIS_PAUSE_SECONDS

    def drop(self, verdict: Verdict = "lost") -> None:
        """Let the job not go on."""
        if self.verdict is None:
            self.verdict = verdict

    def take_report(self) -> Report:
        """What is new since the last report."""
        news, self._news = self._news, None
        return Report(self.claim, news, self.used_seconds, self.energy)


class ProgressReporter:
    """Reporter of what is new about all jobs in flight, in a thread of its own."""

    def __init__(self, claims: Claims, report_seconds: float) -> None:
        """`report_seconds`: minimum time between two reports; 0: each step waits for its own."""
        self.claims = claims
        self._report_seconds = report_seconds
        self._watches: list[JobWatch] = []
        self._news = threading.Event()
        # Held for the time of a report, so that none comes after a job's last one.
        self._lock = threading.Lock()
        self._no_write_before = 0.0
        self._thread = BackgroundThread("progress")

    def start(self) -> None:
        """Report in the background until `close`."""
        self._thread.repeat(self._report_news, self._report_seconds)

    def close(self) -> None:
        """Stop reporting."""
        self._thread.close(timeout_seconds=0)
        self._news.set()
        self._thread.close()

    def add(self, watch: JobWatch) -> None:
        """Report this job from now on."""
        with self._lock:
            self._watches = [*self._watches, watch]

    def finish(self, watch: JobWatch) -> None:
        """Make a job's last report; none comes after it."""
        with self._lock:
            self._watches = [other for other in self._watches if other is not watch]
            if watch.verdict is None:
                self._report([watch])

    def note_news(self) -> None:
        """A job has made a step."""
        if self._report_seconds:
            self._news.set()
        else:
            with self._lock:
                self._report(self._watches)

    def _report_news(self) -> None:
        self._news.wait(_QUIET_SECONDS)
        self._news.clear()
        with self._lock:
            self._report([watch for watch in self._watches if watch.verdict is None])

    def _report(self, watches: list[JobWatch]) -> None:
        """Write the progress, and drop the jobs that do not go on."""
        if not watches or time.monotonic() < self._no_write_before:
            return
        try:
            verdicts = self.claims.advance([watch.take_report() for watch in watches])
        except RedisError as error:
            # The image is worth finishing: the fence decides at the end whether it still counts.
            _log.warning("progress not written: %s", error)
            self._no_write_before = time.monotonic() + _REDIS_PAUSE_SECONDS
            return
        for watch, verdict in zip(watches, verdicts, strict=True):
            if verdict != "on":
                watch.drop(verdict)


def _progress(step: int, steps: int, loss: float | None = None) -> Progress:
    return Progress(step=step, steps=steps, fraction=round(step / steps, 4), loss=loss)
