"""Which of the suspended calls is served next, and which others share it. Pure: knows no torch and no queue."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """The call that one job has suspended itself with.

    Attributes:
        job_id: of the job; each job has one call at most.
        tier: 0 for `high`, 1 for `normal`, 2 for `low`.
        owner: of the job.
        remaining_seconds: predicted seconds of worker time until the job has ended, served alone.
        age_seconds: since the job was accepted.
        deadline_in_seconds: until its deadline; None: it has none.
        key: calls with equal keys can be made as one; None: the call is made alone (a named seed, encoding).
        additions: structure of what ControlNets add; calls can share only where it is equal or one has None.
        kind: what a cost is learned for: (model, entry point, shape of one row).
        rows: of the call, of all its images and guidance passes.
        images: that the rows stand for, for the memory plan.
        max_images: that one call may have by this job's memory plan.
        turn: what must be on the device: the model and its plan. A change of it may move weights.
        last_served: number of the call in which it was served last, 0 before the first.
    """

    job_id: str
    tier: int
    owner: str
    remaining_seconds: float
    age_seconds: float
    deadline_in_seconds: float | None
    key: Hashable | None
    additions: Hashable | None
    kind: Hashable
    rows: int
    images: int
    max_images: int
    turn: Hashable
    last_served: int
