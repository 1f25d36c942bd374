"""Makes the calls of a group, and finds out what to do where one fails.

Where memory runs out, a group is split and its halves are called again; a call of one job takes the job's next
smaller plan, or is made row by row. Any other error belongs to the call that raises it when made alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.adapters.references.attention_hooks import RowSpan
from worker.engine import calls as joined
from worker.engine.calls import Call
from worker.engine.job import JobInFlight
from worker.engine.residency import Residency
from worker.runtime.device import free_memory
from worker.runtime.out_of_memory import is_out_of_memory, raise_if_device_failed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CallResult:
    """The end of one call.

    Attributes:
        value: what its module returns; None where it fails.
        error: the exception that it raises when made alone; None where it does not.
    """

    value: Any = None
    error: Exception | None = None


class Attempts:
    """Calls on one device, retried where memory runs out."""

    def __init__(self, residency: Residency, device: torch.device) -> None:
        self._residency = residency
        self._device = device

    def make(self, calls: Sequence[tuple[JobInFlight, Call]]) -> list[CallResult]:
        """Make calls as one; returns the end of each.

        Raises:
            DeviceFailed: the device no longer works.
        """
        try:
            parts = [(job, RowSpan(call.rows, call.first_row, call.whole_rows)) for job, call in calls]
            with self._residency.computing(calls[0][1].module, parts):
                return [CallResult(value) for value in joined.make([call for _, call in calls])]
        except Exception as error:  # noqa: BLE001 - of any library
            raise_if_device_failed(error, self._device)
            failure = error.with_traceback(None)
        # Outside `except`, the error's frames are gone, and with them their tensors.
        try:
            return self._after_failure(calls, failure)
        except Exception as error:  # noqa: BLE001 - weights could not be brought back
            raise_if_device_failed(error, self._device)
            return [CallResult(error=error.with_traceback(None))] * len(calls)

    def _after_failure(self, calls: Sequence[tuple[JobInFlight, Call]], failure: Exception) -> list[CallResult]:
        job, call = calls[0]
        ran_out = is_out_of_memory(failure)
        if ran_out:
            free_memory()
        self._residency.leave()  # hooks may have stopped half-way
        self._residency.enter(job)
        if len(calls) > 1:
            half = len(calls) // 2
            return [*self.make(calls[:half]), *self.make(calls[half:])]
        # An exact job's bytes depend on the rows of its calls: it takes a smaller plan rather than fewer rows.
        if ran_out and (job.job.exact or call.rows == 1) and self._residency.step_down(job):
            _log.warning("job %s ran out of memory, and goes on with a smaller plan", job.job.id)
            self._residency.place(job)
            return self.make(calls)
        if ran_out and call.rows > 1:
            return [self._make_in_halves(job, call)]
        return [CallResult(error=failure)]

    def _make_in_halves(self, job: JobInFlight, call: Call) -> CallResult:
        """Make one job's call with half of its rows at a time."""
        half = call.rows // 2
        parts = [call.row_range(0, half), call.row_range(half, call.rows)]
        results = [self.make([(job, part)])[0] for part in parts]
        failed = next((result for result in results if result.error is not None), None)
        if failed is not None:
            return failed
        return CallResult(joined.merge([result.value for result in results], [part.rows for part in parts]))
