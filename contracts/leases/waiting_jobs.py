"""Tells jobs that wait for files about the progress of their preparation, and ends those that cannot get them.

Knows no files: a worker that prepares them calls this.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from redis import Redis

from contracts.jobs.preparations import Preparation
from contracts.jobs.records import JobError
from contracts.redis.connection import Scripts

#: How many jobs are told of each step of a download; the others read only that it began, and how it ended.
_TOLD_OF_PROGRESS = 64
#: Jobs that one run of the script visits: it ends each of them in about 0.3 ms, while Redis does nothing else.
_ROUND_JOBS = 100
#: Jobs no longer wait for a worker that has not reported its download for this long.
_STALE_SECONDS = 30.0


class Heard(NamedTuple):
    """Result of updating the waiting jobs.

    Attributes:
        needing: jobs that need the file; where not all are told, only whether any does.
        ended: ids of those that ended.
        others: what else the jobs need that were told.
    """

    needing: int
    ended: list[str]
    others: list[str]


class WaitingJobs:
    """The waiting jobs of all queues, as one worker speaks to those that need something."""

    def __init__(self, connection: Redis, worker: str, ttl_seconds: int) -> None:
        """`connection` decodes responses; `ttl_seconds` is how long a job that has ended is kept."""
        self._scripts = Scripts(connection)
        self._worker = worker
        self._ttl_seconds = ttl_seconds

    def tell(
        self,
        preparation: Preparation,
        *,
        to_all: bool = True,
        limit_seconds: float | None = None,
        expired: JobError | None = None,
    ) -> Heard:
        """Tell the jobs that need it, as an event of each and in its record, how a preparation goes on.

        Jobs that another worker, whose download goes on, already tells are left alone.

        Args:
            to_all: whether all jobs are told, or a few, as is enough for the progress of a download.
            limit_seconds: with `expired`, end with this error the jobs that were first told at least this long ago
                that a download is tried again.

        Raises:
            RedisError: Redis does not answer, or has no memory for events.
        """
        extras: dict[str, Any] = {}
        if limit_seconds is not None and expired is not None:
            extras = {"limit_seconds": limit_seconds, "error": expired.model_dump_json()}
        if not to_all:
            extras["max_jobs"] = _TOLD_OF_PROGRESS
        told = preparation.model_dump(mode="json", exclude_defaults=True)
        return self._run(preparation.name, preparation=told, **extras)

    def need(self, name: str) -> bool:
        """Whether any job needs something. Raises RedisError."""
        return self._run(name).needing > 0

    def fail(self, name: str, error: JobError) -> list[str]:
        """End all jobs that need something with an error; return their ids.

        Raises:
            RedisError: Redis does not answer.
        """
        return self._run(name, error=error.model_dump_json()).ended

    def _run(self, name: str, **arguments: Any) -> Heard:
        """Run the script in rounds: one for all jobs would keep Redis from answering others meanwhile."""
        heard, left = Heard(0, [], []), arguments.get("max_jobs", math.inf)
        while True:
            needing, ended, others, told, *after = self._scripts.run(
                "tell_waiting",
                name=name,
                worker=self._worker,
                stale_seconds=_STALE_SECONDS,
                ttl_seconds=self._ttl_seconds,
                round=_ROUND_JOBS,
                **arguments,
            )
            names = list(dict.fromkeys([*heard.others, *others]))
            heard, left = Heard(heard.needing + needing, [*heard.ended, *ended], names), left - told
            if not after or left <= 0:
                return heard
            arguments["after"] = after[0]
            if "max_jobs" in arguments:
                arguments["max_jobs"] = left
