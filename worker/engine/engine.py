"""The step engine: serves one call after another, for the jobs that the policy chooses, until all have ended.

A call of the denoiser, of a ControlNet or of the VAE's decoder is made for all jobs that the policy has chosen to
share it; loading and encoding are turns of one job. Knows no queue and no pipelines.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from worker.engine.attempts import Attempts
from worker.engine.calls import Call
from worker.engine.coroutine import Coroutine, Turn
from worker.engine.flops import FlopTable
from worker.engine.job import Job, JobInFlight
from worker.engine.meter import CallMeter, call_of, kind_of
from worker.engine.policy import Policy, StepPolicy, Waiting
from worker.engine.residency import Residency
from worker.pool.pool import Pool
from worker.runtime.out_of_memory import raise_if_device_failed

_log = logging.getLogger(__name__)

#: The work of a job: is given the job in flight, and returns its result.
Work = Callable[[JobInFlight], Any]


class Engine:
    """Step engine of a worker: runs jobs in the thread that made it; other threads may only read.

    Attributes:
        residency: what the device is set up for.
    """

    def __init__(
        self,
        pool: Pool,
        policy: Policy | None = None,
        max_rows: int = 16,
        lower_tier_share: float = 0.1,
        buckets: Sequence[int] | None = None,
        on_call: Callable[[str, int], object] | None = None,
        is_encoded_elsewhere: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Build it; it runs whenever `tick` is called.

        Args:
            max_rows: of one joined call.
            lower_tier_share: as in `StepPolicy`, where no policy is given.
            buckets: numbers of rows that joined calls may have, where the denoiser is compiled; None: any.
            on_call: told of each call of a denoiser: model and rows.
            is_encoded_elsewhere: whether another thread encodes a job's prompts: others are served meanwhile.
        """
        self.residency = Residency(pool)
        self._alive_at = time.monotonic()
        self._pool = pool
        self._policy = policy or StepPolicy(self.residency.move_seconds, lower_tier_share)
        self._max_rows, self._buckets = max_rows, buckets
        self._is_encoded_elsewhere = is_encoded_elsewhere
        self._jobs: list[JobInFlight] = []
        self._number = 0
        #: Job id -> since when it has waited for others to end.
        self._blocked: dict[str, float] = {}
        #: Tiers of the jobs that wait until another one's model is loaded.
        self._tiers_held_up: list[int] = []
        self._measuring = ExitStack()
        self._meter = CallMeter(pool.device, self.residency, on_call)
        self._attempts = Attempts(self.residency, pool.device)

    @property
    def jobs(self) -> Sequence[JobInFlight]:
        """Those in flight."""
        return self._jobs

    @property
    def flops(self) -> FlopTable:
        """Operations of modules' calls, for those that the engine does not make itself."""
        return self._meter.flops

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last sign of life; 0 while there are no jobs."""
        return time.monotonic() - self._alive_at if self._jobs else 0.0

    @property
    def blocked_seconds(self) -> float:
        """The longest that any job has waited for others to end so that its model can be placed.

        Those in the background wait without keeping others from being begun.
        """
        now = time.monotonic()
        return max((now - since for since in self._blocked.values()), default=0.0)

    @property
    def has_blocked_jobs(self) -> bool:
        """Whether jobs, other than those in the background, wait for others to end."""
        return bool(self._blocked)

    def mark_alive(self) -> None:
        """Count the thread as not idle: it waits for something that has a timeout of its own."""
        self._alive_at = time.monotonic()

    def start(
        self, job: Job, work: Work, stop_reason: Callable[[], BaseException | None] = lambda: None
    ) -> JobInFlight:
        """Start a job: its work runs until it first asks for the device.

        Args:
            stop_reason: as in `JobInFlight`.
        """
        if not self._jobs:
            self._measuring.enter_context(self._pool.memory_tracker.running(self._pool.resident_bytes))

        def run(_: Coroutine) -> Any:
            return work(started)

        started = JobInFlight(job, Coroutine(run, self._pool.device, job.parameters.seed), stop_reason)
        self._jobs.append(started)
        self.residency.add(started)
        with torch.inference_mode():
            self._wake(started)
        return started

    def tick(self) -> list[JobInFlight]:
        """Serve one call, or one turn; returns the jobs that have ended.

        Raises:
            DeviceFailed: the device no longer works; `close` abandons the jobs in flight.
        """
        self._meter.poll()
        with torch.inference_mode():
            for job in list(self._jobs):
                reason = None if job.coroutine.dead else job.stop_reason()
                if reason is not None:
                    self._wake(job, error=reason)
            chosen = self._choose()
            if chosen:
                started_at = time.perf_counter()
                by_id = {job.job.id: job for job in self._jobs}
                self._serve([by_id[one.job_id] for one in chosen])
                self._policy.served(chosen, time.perf_counter() - started_at)
        ended = [job for job in self._jobs if job.coroutine.dead]
        for job in ended:
            self._end(job)
        return ended

    def close(self) -> list[JobInFlight]:
        """Abandon all jobs in flight, and leave the device as if none had run; returns them."""
        given_up = list(self._jobs)
        with torch.inference_mode():
            for job in given_up:
                job.coroutine.close()
        for job in given_up:
            self._end(job)
        return given_up

    def _end(self, job: JobInFlight) -> None:
        self._meter.poll()
        self._jobs.remove(job)
        self.residency.remove(job)
        if not self._jobs:
            self.residency.leave()
            self._measuring.close()

    # -- which calls ----------------------------------------------------------------------------------

    def _choose(self) -> list[Waiting]:
        """The calls that are made next; empty where all jobs wait for others to end."""
        by_id = {job.job.id: job for job in self._jobs if not job.coroutine.dead}
        blocked = {id for id, job in by_id.items() if self.residency.must_wait(job)}
        now = time.monotonic()
        self._blocked = {id: self._blocked.get(id, now) for id in blocked if not by_id[id].job.is_background}
        held_up = {id: job.job.tier for id, job in by_id.items() if self.residency.waits_for_load(job)}
        self._tiers_held_up = list(held_up.values())
        can_run = [job for id, job in by_id.items() if id not in blocked and id not in held_up]
        # A job whose prompts another thread encodes lets others go first; alone, it waits for that thread.
        can_run = [job for job in can_run if not self._is_helped(job)] or can_run
        if not can_run:
            return []
        waiting = [self._waiting(job) for job in can_run]
        return self._policy.choose(waiting, self._meter.costs, self._max_rows, self._buckets)

    def _waiting(self, job: JobInFlight) -> Waiting:
        about, wait, now = job.job, job.coroutine.wait, time.monotonic()
        call = wait if isinstance(wait, Call) else None
        is_shared = call is not None and call.entry != "encode"  # encoding comes before what is shared
        return Waiting(
            job_id=about.id,
            tier=self._tier_of(job),
            owner=about.owner,
            remaining_seconds=self._remaining_seconds(job),
            age_seconds=now - about.accepted_at,
            deadline_in_seconds=None if about.deadline_at is None else about.deadline_at - now,
            key=None if call is None else _key(job, call),
            additions=None if call is None else call.additions,
            kind=kind_of(job, wait),
            rows=about.parameters.num_images if call is None else call.rows,
            images=about.parameters.num_images,
            max_images=self.residency.memory.max_images(job),
            turn=self.residency.turn_of(job),
            last_served=job.last_served,
            opens=None if about.exact or is_shared else self.residency.turn_of(job),
            is_loading=self.residency.is_loading(job),
        )

    def _tier_of(self, job: JobInFlight) -> int:
        """A job's tier; while its model is being loaded, the highest of those that wait for that."""
        return min([job.job.tier, *(self._tiers_held_up if self.residency.is_loading(job) else [])])

    def _is_helped(self, job: JobInFlight) -> bool:
        return job.coroutine.wait == Turn("encode_prompt") and self._is_encoded_elsewhere(job.job.id)

    def _remaining_seconds(self, job: JobInFlight) -> float:
        seconds = self._meter.costs.seconds(job.step_kind, job.job.parameters.num_images)
        return seconds * (job.steps_left + 1)  # decoding counts as a step

    # -- serving --------------------------------------------------------------------------------------

    def _serve(self, group: list[JobInFlight]) -> None:
        first = group[0]
        self._number += 1
        self._alive_at = time.monotonic()
        for job in self._jobs:
            if job.last_served and job not in group:
                job.usage.pauses += any(other.job.owner == job.job.owner for other in group)
        for job in group:
            job.last_served = self._number
        try:
            self.residency.enter(first)
        except Exception as error:  # noqa: BLE001 - the job's work decides what it means
            raise_if_device_failed(error, self._pool.device)
            self._wake(first, error=error.with_traceback(None))
            return
        if isinstance(first.coroutine.wait, Turn):
            kind, started_at = kind_of(first, first.coroutine.wait), time.perf_counter()
            self._wake(first)
            first.turn_seconds += time.perf_counter() - started_at
            if not self.residency.is_loading(first):
                self._meter.costs.learn(kind, first.job.parameters.num_images, first.turn_seconds)
                first.turn_seconds = 0.0
            return
        # Jobs with the same adapters side by side: one change then serves them all.
        group.sort(key=lambda job: job.adapters.key)
        self._meter.start()
        results = self._attempts.make([(job, call_of(job)) for job in group])
        self._meter.stop(group)
        self._note_memory(group)
        for job in group:
            result = results.pop(0)  # nothing but the job keeps it
            self._wake(job, result.value, result.error)

    def _wake(self, job: JobInFlight, value: Any = None, error: BaseException | None = None) -> None:
        steps_before = job.steps_done
        job.coroutine.wake(value, error)
        self._alive_at = time.monotonic()
        self._note_memory([job])
        if job.steps_done > steps_before:
            self._meter.learn_step(job)

    def note_memory(self, job: JobInFlight) -> None:
        """Inside the job's coroutine, before its receipt: note what it has taken since it was woken."""
        self._note_memory([job])

    def _note_memory(self, jobs: Sequence[JobInFlight]) -> None:
        peak_bytes = self._pool.take_peak(jobs[0].model_id)
        for job in jobs:
            if peak_bytes is not None:
                job.usage.peak_bytes = max(job.usage.peak_bytes or 0, peak_bytes)


def _key(job: JobInFlight, call: Call) -> Hashable | None:
    """Equal for calls that can be made as one; None for one that is made alone."""
    if job.job.exact or call.entry == "encode":  # what an encoder returns is an object that cannot be cut
        return None
    # Tiles, which a plan may ask the decoder for, change the image.
    tile_side = job.placed.plan.tile_side if job.placed is not None and call.entry == "decode" else None
    return call.key, tile_side
