"""One owner's jobs, newest first, in pages. Reads the index `keys.OWNER_JOBS`; knows no HTTP.

Filters are held against each job's own fields, since there is one index an owner and no more to keep true. A page
looks at a bounded number of jobs, so that a rare filter over many jobs costs several short calls and no long one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from redis import Redis

from contracts.catalogue.families import Task
from contracts.queue.client import JobQueue
from contracts.queue.records import JobRecord, JobState
from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable

_CHUNK = 200
#: Jobs that one page looks at, at the most.
_LOOK_LIMIT = 5000


class Cursor(NamedTuple):
    """The last job that a page looked at; the next page begins after it."""

    created_at: float
    id: str

    def write(self) -> str:
        """As clients see it: opaque."""
        text = f"{self.created_at!r} {self.id}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Cursor:
        """What `write` made; raises ValueError for anything else."""
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        created_at, space, id = raw.decode().partition(" ")
        if not space or not float("-inf") < float(created_at) < float("inf"):
            raise ValueError("no cursor")
        return cls(float(created_at), id)


@dataclass(frozen=True)
class Filter:
    """What a job must be to stand in the list; None lets everything through."""

    status: JobState | None = None
    model: str | None = None
    task: Task | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def accepts(self, state: str, model: str, task: str, metadata: str | None) -> bool:
        """Hold the fields of a job's hash against it."""
        wanted = ((self.status, state), (self.model, model), (self.task, task))
        if any(one is not None and one != found for one, found in wanted):
            return False
        pairs = json.loads(metadata or "{}") if self.metadata else {}
        return all(pairs.get(key) == value for key, value in self.metadata.items())


@dataclass(frozen=True)
class Page:
    """Some jobs, and where to go on; None when there are no more."""

    jobs: list[JobRecord]
    next: Cursor | None


def list_jobs(queue: JobQueue, owner: str, wanted: Filter, limit: int, after: Cursor | None = None) -> Page:
    """A page of an owner's jobs; shorter than `limit`, though not the last, where few of many fit.

    Raises:
        Unavailable: Redis does not answer.
    """
    ids: list[str] = []
    last, looked = after, 0
    with redis_errors_are_unavailable():
        for cursor, fits in _walk(queue.connection, owner, wanted, after):
            if looked == _LOOK_LIMIT or (fits and len(ids) == limit):
                return Page(queue.fetch_all(ids), last)
            if fits:
                ids.append(cursor.id)
            last, looked = cursor, looked + 1
    return Page(queue.fetch_all(ids), None)


def _walk(connection: Redis, owner: str, wanted: Filter, after: Cursor | None) -> Iterator[tuple[Cursor, bool]]:
    """An owner's jobs, newest first, with whether each fits. Jobs that are no more are dropped from the index."""
    index = keys.OWNER_JOBS + owner
    while True:
        top: Any = "+inf" if after is None else repr(after.created_at)
        found = connection.zrevrangebyscore(index, top, "-inf", start=0, num=_CHUNK, withscores=True)
        entries = [Cursor(score, id) for id, score in cast("list[tuple[str, float]]", found)]
        # Redis orders equal scores by name, as tuples are.
        entries = [entry for entry in entries if after is None or entry < after]
        if not entries:
            return
        with connection.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.hmget(keys.JOB + entry.id, ["state", "model", "task", "metadata"])
            rows = pipe.execute()
        for entry, (state, model, task, metadata) in zip(entries, rows, strict=True):
            if state is None:
                connection.zrem(index, entry.id)
            else:
                yield entry, wanted.accepts(state, model, task, metadata)
        after = entries[-1]
