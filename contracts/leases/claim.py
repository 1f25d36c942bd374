"""A job that a worker has leased, what the worker reports of it, and what it is told. Knows no Redis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from contracts.jobs.receipt import Energy
from contracts.jobs.records import JobRecord, Progress

#: Whether a job goes on, or why not: lease lost, cancelled, deadline passed, maximum worker time used up.
Verdict = Literal["on", "lost", "cancel", "deadline", "overtime"]


@dataclass(frozen=True)
class Claim:
    """A job that a worker has leased.

    Attributes:
        job: its record at the time of the claim.
        execution: the fencing token.
        alone: whether it must run alone, because it was running when a worker or its device was lost.
    """

    job: JobRecord
    execution: str
    alone: bool = False

    def reference(self) -> dict[str, str]:
        """Return the arguments by which the scripts identify the claim."""
        return {"id": self.job.id, "execution": self.execution}


@dataclass(frozen=True)
class Report:
    """Worker's report on a running job.

    Attributes:
        progress: None where it has not changed.
        used_seconds: worker time that this execution has used so far, without that of jobs that ran in its place.
        energy: that the device drew for it so far; None where that is unknown.
    """

    claim: Claim
    progress: Progress | None
    used_seconds: float
    energy: Energy | None = None
