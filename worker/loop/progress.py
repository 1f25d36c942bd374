"""Watches a batch while it runs: progress out, cancels and deadlines in, one round trip a report.

Also keeps the sign of life that the watchdog looks at. Knows claims; knows nothing of diffusers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError

from contracts.queue.events import Preview
from contracts.queue.leases import Claim, Claims, Verdict
from contracts.queue.records import Progress

_log = logging.getLogger(__name__)

#: After a failed write to Redis, steps go on without one for this long.
_REDIS_PAUSE_SECONDS = 1.0


class Aborted(Exception):
    """No job of the batch goes on; raised out of the pipeline's step callback."""


class Released(Exception):
    """The worker must stop now: the jobs go back to the queue."""


class JobWatch:
    """One batch's eyes and ears; `step` is called after every denoising step.

    Attributes:
        verdicts: job id -> why it was dropped, for jobs that do not go on.
    """

    def __init__(
        self,
        claims: Claims,
        batch: Sequence[Claim],
        leave: threading.Event,
        on_step: Callable[[], object] = lambda: None,
        report_seconds: float = 0.0,
    ) -> None:
        """`leave` set: hand the batch back at the next step. `on_step` is called after each that goes on.

        `report_seconds`: a step that ends so soon after a report is not reported, unless it is the last one.
        """
        self.verdicts: dict[str, Verdict] = {}
        self._claims = claims
        self._active = list(batch)
        self._leave = leave
        self._on_step = on_step
        self._report_seconds = report_seconds
        self._reported_at = float("-inf")
        self._first_step_at: float | None = None
        self._silent_until = 0.0
        self._last_sign_at = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._last_sign_at

    def step(self, step: int, steps: int) -> None:
        """One more step is done; report it, where the last report is old enough.

        Raises:
            Abandoned: every job was cancelled, ran out of time, or is another worker's by now.
            HandedBack: the worker is told to leave.
        """
        self._last_sign_at = time.monotonic()
        if self._leave.is_set():
            raise Released
        progress = self._progress(step, steps)
        if step == steps or self._last_sign_at - self._reported_at >= self._report_seconds:
            self._advance(progress)
            self._reported_at = time.monotonic()
        if not self._active:
            raise Aborted
        self._on_step()

    def preview(self, job_id: str, preview: Preview) -> None:
        """Tell a job's listeners how an image looks by now; in any thread, while Redis answers."""
        claim = next((one for one in self._active if one.job.id == job_id), None)
        if claim is None or time.monotonic() < self._silent_until:
            return
        try:
            self._claims.preview(claim, preview)
        except RedisError as error:
            _log.warning("preview not told: %s", error)
            self._silent_until = time.monotonic() + _REDIS_PAUSE_SECONDS

    def drop(self, job_id: str) -> None:
        """Forget a job whose lease was lost."""
        self.verdicts[job_id] = "lost"
        self._active = [claim for claim in self._active if claim.job.id != job_id]

    def _progress(self, step: int, steps: int) -> Progress:
        eta_seconds = None
        if self._first_step_at is None:
            self._first_step_at = self._last_sign_at
        elif step > 1:
            eta_seconds = round((self._last_sign_at - self._first_step_at) / (step - 1) * (steps - step), 3)
        return Progress(step=step, steps=steps, fraction=round(step / steps, 4), eta_seconds=eta_seconds)

    def _advance(self, progress: Progress) -> None:
        if self._last_sign_at < self._silent_until:
            return
        try:
            verdicts = self._claims.advance(self._active, progress)
        except RedisError as error:
            # The image is worth finishing: whether it still counts, the fence decides at the end.
            _log.warning("progress not written: %s", error)
            self._silent_until = time.monotonic() + _REDIS_PAUSE_SECONDS
            return
        for claim, verdict in zip(self._active, verdicts, strict=True):
            if verdict != "on":
                self.verdicts[claim.job.id] = verdict
        self._active = [claim for claim in self._active if claim.job.id not in self.verdicts]
