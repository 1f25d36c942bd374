"""One owner's jobs, or all jobs, newest first, in pages. Reads their indexes in Redis; knows no HTTP.

There is one index per owner, and one of all, so filters are compared with each job's own fields. A page scans a
limited number of jobs: a filter that matches few of many jobs takes several short calls rather than one long call.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from redis import Redis

from contracts.catalogue.families import Task
from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.requests.schema import Priority

#: Jobs that one Redis call reads.
_CHUNK_SIZE = 200
#: Fields of a job by which lists are filtered, and `queue`, which every job has.
_FILTERED = ["queue", "state", "model", "task", "priority", "metadata"]
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
    task: Task | None = None
    priority: Priority | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def matches(self, job: Mapping[str, str | None]) -> bool:
        """Return whether the fields of a job's hash match; None: missing."""
        wanted = {"state": self.status, "model": self.model, "task": self.task, "priority": self.priority}
        if any(value is not None and value != job[name] for name, value in wanted.items()):
            return False
        values = _read_pairs(job["metadata"]) if self.metadata else {}
        return all(values.get(key) == value for key, value in self.metadata.items())


def _read_pairs(metadata: str | None) -> Mapping[str, object]:
    try:
        pairs = json.loads(metadata or "{}")
    except ValueError:
        return {}
    return pairs if isinstance(pairs, dict) else {}


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
    ids: list[str] = []
    last, scanned = after, 0
    with redis_errors_are_unavailable():
        for cursor, matches in _walk(queue.connection, owner, filters, after):
            if scanned == _SCAN_LIMIT or (matches and len(ids) == limit):
                return Page(queue.fetch_all(ids), last)
            if matches:
                ids.append(cursor.id)
            last, scanned = cursor, scanned + 1
    return Page(queue.fetch_all(ids), None)


def _walk(
    connection: Redis, owner: str | None, filters: Filter, after: Cursor | None
) -> Iterator[tuple[Cursor, bool]]:
    """Yield the jobs of an index, newest first, and whether each matches. Remove jobs that are gone from it."""
    index = keys.ALL_JOBS if owner is None else keys.OWNER_JOBS + owner
    while True:
        top: Any = "+inf" if after is None else repr(after.created_at)
        found = connection.zrevrangebyscore(index, top, "-inf", start=0, num=_CHUNK_SIZE, withscores=True)
        entries = [Cursor(score, id) for id, score in cast("list[tuple[str, float]]", found)]
        # Redis orders equal scores by member, like tuples.
        entries = [entry for entry in entries if after is None or entry < after]
        if not entries:
            return
        with connection.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.hmget(keys.JOB + entry.id, _FILTERED)
            rows = pipe.execute()
        for entry, row in zip(entries, rows, strict=True):
            job = dict(zip(_FILTERED, row, strict=True))
            if job["state"] is None and job["queue"] is None:
                connection.zrem(index, entry.id)
            else:
                yield entry, filters.matches(job)
        after = entries[-1]
