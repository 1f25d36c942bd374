"""What a worker asks the queue for, and the answers that are not a job. Knows no Redis."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from contracts.jobs.records import JobRecord
from contracts.requests.schema import CHOSEN_PRIORITIES

#: Room for one job of each tier but that of trainings, which not every worker takes.
ROOM_FOR_ONE: Mapping[str, int] = dict.fromkeys(map(str, CHOSEN_PRIORITIES), 1)


@dataclass(frozen=True)
class ClaimCriteria:
    """The jobs that a worker can take.

    Attributes:
        warm: models that are loaded.
        settled: whether the resident model has had its minimum residency, so that an overdue job may replace it.
        ready: what can be used without preparation, named as in `JobParameters.needs`; None: everything.
        deferred: names of what is being prepared or cannot be prepared for now: jobs that need it are skipped.
        room: tier -> how many jobs of that tier the worker may still claim; a tier that is missing has no room.
        in_flight: jobs that the worker has claimed and not ended.
    """

    warm: Collection[str] = ()
    settled: bool = True
    ready: Collection[str] | None = None
    deferred: Collection[str] = ()
    room: Mapping[str, int] = field(default_factory=lambda: dict(ROOM_FOR_ONE))
    in_flight: int = 0


@dataclass(frozen=True)
class NextJobs:
    """Jobs that would be leased next.

    Attributes:
        jobs: those that lack nothing.
        unready: names of what must be prepared before the others can run.
    """

    jobs: Sequence[JobRecord]
    unready: Sequence[str]


class NotReady(Exception):
    """An answer without a job: the next one needs something that must be prepared first.

    Attributes:
        names: of all that it lacks, as in `JobParameters.needs`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names))
        self.names = tuple(names)


class Suspended(Exception):
    """An answer without a job: `rq suspend` stops all claims until `rq resume`."""


class MustRunAlone(Exception):
    """An answer without a job: the next one must run alone, and this worker has jobs in flight.

    A worker that claims nothing until its jobs have ended gets the job then, unless another has taken it.
    """
