"""One owner's jobs, or all jobs, newest first, in pages. Reads their indexes in Redis; knows no HTTP.

There is one index per owner, and one of all, so filters are compared with each job's own fields. A page scans a
limited number of jobs: a filter that matches few of many jobs takes several short calls rather than one long call.
A script compares, in rounds, since reading jobs only to leave them out would cost this process far more.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable
from contracts.requests.schema import Priority
from contracts.requests.task_parameters import JobTask

#: Jobs that one Redis call compares, in about a millisecond.
_ROUND = 500
#: Maximum number of jobs that one page scans.
_SCAN_LIMIT = 5000


class Cursor(NamedTuple):
    """The last job that a page scanned; the next page begins after it."""

    created_at: float
    id: str

    def write(self) -> str:
        """Return the opaque text that clients receive."""
        text = f"{self.created_at!r} {self.id}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Read a text from `write`; raises ValueError for any other text."""
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        created_at, space, id = raw.decode().partition(" ")
        if not space or not float("-inf") < float(created_at) < float("inf"):
            raise ValueError("not a cursor")
        return cls(float(created_at), id)


@dataclass(frozen=True)
class Filter:
    """The jobs to list; None in a field matches every job."""

    status: JobState | None = None
    model: str | None = None
    task: JobTask | None = None
    priority: Priority | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def arguments(self) -> dict[str, Mapping[str, str]]:
        """What `find_jobs.lua` compares: fields of a job's hash, and rows of its metadata."""
        wanted = {"state": self.status, "model": self.model, "task": self.task, "priority": self.priority}
        return {
            "wanted": {name: value for name, value in wanted.items() if value is not None},
            "metadata": self.metadata,
        }


@dataclass(frozen=True)
class Page:
    """Some jobs, and where the next page begins; None on the last page."""

    jobs: list[JobRecord]
    next: Cursor | None


def list_jobs(
    queue: JobQueue, owner: str | None, filters: Filter, limit: int, after: Cursor | None = None
) -> Page:
    """Return a page of an owner's jobs, or of all; it may have fewer jobs than `limit` and not be the last one.

    Raises:
        Unavailable: Redis does not answer.
    """
    scripts, index = Scripts(queue.connection), keys.ALL_JOBS if owner is None else keys.OWNER_JOBS + owner
    ids: list[str] = []
    last, scanned, is_full, has_more = after, 0, False, True
    with redis_errors_are_unavailable():
        while has_more and not is_full and scanned < _SCAN_LIMIT:
            place = {} if last is None else {"after": {"score": repr(last.created_at), "id": last.id}}
            options = {"limit": limit - len(ids), "scan": _ROUND, **filters.arguments(), **place}
            found = json.loads(scripts.run("find_jobs", index=index, **options))
            ids += found["ids"] or ()  # Lua writes an empty list as an empty object
            scanned, is_full, has_more = scanned + found["scanned"], found["is_full"], found["has_more"]
            if "id" in found:
                last = Cursor(float(found["score"]), found["id"])
    return Page(queue.fetch_all(ids), last if has_more else None)
