"""Watches jobs while they run: writes their progress, reads cancels and deadlines; one round trip per report.

The steps go on meanwhile: what a report brings is heeded at the step after it. Also keeps the time of the last
step, for the watchdog. Knows claims; knows nothing of diffusers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from redis.exceptions import RedisError

from contracts.processes.background import BackgroundThread
from contracts.queue.events import Preview
from contracts.queue.leases import Claim, Claims, Report, Verdict
from contracts.queue.records import Progress

_log = logging.getLogger(__name__)

#: After a failed write to Redis, nothing is written for this long, so that steps do not wait for it.
_REDIS_PAUSE_SECONDS = 1.0


class Aborted(Exception):
    """No job of the pipeline call goes on; raised out of the pipeline's step callback."""


class Released(Exception):
    """The worker must stop now, and its jobs go back to the queue; raised out of the pipeline's step callback."""


class JobWatch:
    """The progress of jobs in one pipeline call, and why some of them do not go on.

    Attributes:
        verdicts: job id -> why it was dropped.
    """

    def __init__(
        self,
        claims: Claims,
        running: Sequence[Claim],
        must_release: Callable[[], bool] = lambda: False,
        on_step: Callable[[], object] = lambda: None,
        report_seconds: float = 0.0,
        thread: BackgroundThread | None = None,
    ) -> None:
        """Watch jobs that start now.

        Args:
            must_release: asked at each step: whether the jobs go back to the queue.
            on_step: called after each step after which jobs go on.
            report_seconds: minimum time between two reports; the last step is always reported.
            thread: makes the reports of all steps but the last; None: each step waits for its own.
        """
        self.verdicts: dict[str, Verdict] = {}
        self._claims = claims
        self._running = list(running)
        self._must_release = must_release
        self._on_step = on_step
        self._report_seconds = report_seconds
        self._thread = thread
        self._report: Future[None] | None = None
        self._reported_at = float("-inf")
        self._first_step_at: float | None = None
        self._no_write_before = 0.0
        # Apart, because a Redis whose memory is full refuses previews only.
        self._no_preview_before = 0.0
        self._last_step_at = self._started_at = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last step, or since the start."""
        return time.monotonic() - self._last_step_at

    def mark_alive(self) -> None:
        """Tell the watchdog that these jobs wait for something that is being watched: no step is due."""
        self._last_step_at = time.monotonic()

    def step(self, step: int, steps: int) -> None:
        """Called after each denoising step; report it if the last report is old enough, and has ended.

        Raises:
            Aborted: every job was cancelled, is past its deadline, or belongs to another worker.
            Released: the worker must stop now.
        """
        self._last_step_at = time.monotonic()
        if self._must_release():
            raise Released
        progress = self._progress(step, steps)
        if step == steps:
            self.finish()
            self._ask(progress)
        elif self._is_due():
            self.finish()
            self._start_report(progress)
        if not self._running:
            raise Aborted
        self._on_step()

    def check(self) -> None:
        """Called between stages that have no steps: drop jobs that were cancelled or are past their deadline.

        Raises:
            Aborted: no job is left.
            Released: the worker must stop now.
        """
        if self._must_release():
            raise Released
        self.finish()
        self._ask(None)
        if not self._running:
            raise Aborted

    def finish(self) -> None:
        """Wait for the report that is being made, so that none comes after the call."""
        report, self._report = self._report, None
        if report is not None:
            report.result()

    def preview(self, job_id: str, preview: Preview) -> None:
        """Publish a preview of a running job; in any thread. A preview that cannot be written is dropped."""
        claim = next((claim for claim in self._running if claim.job.id == job_id), None)
        if claim is None or time.monotonic() < self._no_preview_before:
            return
        try:
            self._claims.preview(claim, preview)
        except RedisError as error:
            _log.warning("preview not written: %s", error)
            self._no_preview_before = time.monotonic() + _REDIS_PAUSE_SECONDS

    def drop(self, job_id: str) -> None:
        """Stop watching a job whose lease was lost."""
        self.verdicts[job_id] = "lost"
        self._running = [claim for claim in self._running if claim.job.id != job_id]

    def _is_due(self) -> bool:
        is_free = self._report is None or self._report.done()
        return is_free and self._last_step_at - self._reported_at >= self._report_seconds

    def _start_report(self, progress: Progress) -> None:
        if self._thread is None:
            self._ask(progress)
        else:
            self._report = self._thread.submit(partial(self._ask, progress))
        self._reported_at = time.monotonic()

    def _progress(self, step: int, steps: int) -> Progress:
        eta_seconds = None
        if self._first_step_at is None:
            self._first_step_at = self._last_step_at
        elif step > 1:
            eta_seconds = round((self._last_step_at - self._first_step_at) / (step - 1) * (steps - step), 3)
        return Progress(step=step, steps=steps, fraction=round(step / steps, 4), eta_seconds=eta_seconds)

    def _ask(self, progress: Progress | None) -> None:
        """Write the progress, if there is any, and drop the jobs that do not go on."""
        if time.monotonic() < self._no_write_before:
            return
        running = self._running  # the heartbeat's thread may drop one meanwhile
        seconds = time.monotonic() - self._started_at
        try:
            verdicts = self._claims.advance([Report(claim, progress, seconds) for claim in running])
        except RedisError as error:
            # The image is worth finishing: the fence decides at the end whether it still counts.
            _log.warning("progress not written: %s", error)
            self._no_write_before = time.monotonic() + _REDIS_PAUSE_SECONDS
            return
        for claim, verdict in zip(running, verdicts, strict=True):
            if verdict != "on":
                self.verdicts[claim.job.id] = verdict
        self._running = [claim for claim in self._running if claim.job.id not in self.verdicts]
