"""The cost of served calls: shares their seconds among the jobs, and predicts from them those of later calls.

A device that computes behind the host tells a call's seconds later. Knows no order of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from worker.engine.calls import Call
from worker.engine.coroutine import Turn
from worker.engine.costs import CallCosts
from worker.engine.flops import FlopTable
from worker.engine.job import JobInFlight
from worker.engine.residency import Residency
from worker.runtime.call_timer import CallTimer


@dataclass(frozen=True)
class _Served:
    """A call that was made, without its tensors: the device may still be computing it when others are prepared."""

    jobs: tuple[JobInFlight, ...]
    rows: tuple[int, ...]
    entry: str
    model: str
    kind: Hashable
    is_denoiser: bool

    def rows_of(self, owner: str) -> int:
        """Rows of one owner's jobs."""
        return sum(rows for job, rows in zip(self.jobs, self.rows, strict=True) if job.job.owner == owner)


class CallMeter:
    """Meter of the seconds of calls on one device.

    Attributes:
        costs: what calls take.
        flops: operations of calls.
    """

    def __init__(
        self, device: torch.device, residency: Residency, on_call: Callable[[str, int], object] | None = None
    ) -> None:
        """`on_call`: told of each call of a denoiser: model and rows."""
        self.costs = CallCosts()
        self.flops = FlopTable()
        self._timer = CallTimer(device)
        self._residency = residency
        self._on_call = on_call

    def start(self) -> None:
        """A call begins; waits while too many are queued on the device."""
        self._timer.start()

    def stop(self, group: Sequence[JobInFlight]) -> None:
        """The call for which these jobs wait has been made, or is queued on the device."""
        calls = [call_of(job) for job in group]
        first = calls[0]
        for job, call in zip(group, calls, strict=True):
            job.usage.note_flops(self.flops.of(call.module, call.entry, call.given))
        served = _Served(
            jobs=tuple(group),
            rows=tuple(call.rows for call in calls),
            entry=first.entry,
            model=group[0].model_id,
            kind=kind_of(group[0], first),
            is_denoiser=self._residency.is_denoiser(first.module),
        )
        self._timer.stop(partial(self._account, served))

    def poll(self) -> None:
        """Account for the calls that the device has ended."""
        self._timer.poll()

    def learn_step(self, job: JobInFlight) -> None:
        """A job has made a step: note what it has taken, of calls and of the job's own work."""
        now = job.coroutine.used_seconds
        if job.step_used_seconds is not None:
            self.costs.learn(job.step_kind, job.job.parameters.num_images, now - job.step_used_seconds)
        job.step_used_seconds = now

    def _account(self, served: _Served, seconds: float) -> None:
        rows = sum(served.rows)
        self.costs.learn(served.kind, rows, seconds)
        if served.is_denoiser and self._on_call is not None:
            self._on_call(served.model, rows)
        for job, own_rows in zip(served.jobs, served.rows, strict=True):
            share, usage = seconds * own_rows / rows, job.usage
            job.coroutine.used_seconds += share
            usage.joined |= len(served.jobs) > 1
            if served.entry == "__call__":
                usage.denoise_seconds += share
            if served.is_denoiser:
                usage.calls += 1
                usage.own_rows += served.rows_of(job.job.owner)
                usage.image_rows = own_rows / job.job.parameters.num_images
                usage.call_images += rows / usage.image_rows


def call_of(job: JobInFlight) -> Call:
    """The call that a job waits for."""
    wait = job.coroutine.wait
    if not isinstance(wait, Call):
        raise TypeError(f"job {job.job.id} waits for {wait}, not for a call")
    return wait


def kind_of(job: JobInFlight, wait: Call | Turn | None) -> Hashable:
    """What the seconds of a call are learned for."""
    if isinstance(wait, Call):
        return (id(wait.module), wait.entry, wait.shape)
    return (job.model_id, wait.stage if wait is not None else "")
