"""Limits on what one owner and one API key may have in the queue; `submit.lua` holds them. Knows no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Quota:
    """The maximum number of jobs of one API key that may wait and run at the same time."""

    key_id: str
    max_jobs: int


@dataclass(frozen=True)
class SubmitLimits:
    """Limits that Redis checks in the same step that accepts a job; None: no limit.

    Attributes:
        max_waiting: jobs that may wait, of all owners.
        max_waiting_per_owner: of one owner.
        max_bytes: of one owner's files, the images of this job and of those before it included; 0: no limit.
        quota: of the API key.
        max_record_bytes: of Redis' memory for the records of one owner's jobs, ended ones included; 0: no limit.
    """

    max_waiting: int | None = None
    max_waiting_per_owner: int | None = None
    max_bytes: int = 0
    quota: Quota | None = None
    max_record_bytes: int = 0

    def arguments(self) -> dict[str, Any]:
        """As `submit.lua` takes them."""
        return {**vars(self), "quota": None if self.quota is None else vars(self.quota)}
