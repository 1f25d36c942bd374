"""The queues in which jobs wait, one for each priority, model and owner: for operators. Reads; changes nothing."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from redis import Redis

from contracts.forecast.snapshot_reader import read_measurements
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable
from contracts.requests.schema import Priority

#: Jobs of each queue from which its seconds are predicted; the others are taken to be like them.
_SAMPLE_JOBS = 20
_NAME = re.compile(rf"{re.escape(keys.JOB_QUEUE)}(?P<tier>[^:]+):(?P<model>.*):(?P<owner>[^:]*)")


class QueueName(NamedTuple):
    """A queue by what its name says; ordered by priority, then model, then owner."""

    tier: int
    model: str
    owner: str
    name: str

    @classmethod
    def read(cls, name: str) -> QueueName:
        """Read the name of a queue; raises ValueError for any other text."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError("not the name of a queue")
        return cls(list(Priority).index(Priority(match["tier"])), match["model"], match["owner"], name)

    @property
    def priority(self) -> Priority:
        """The priority of its jobs."""
        return list(Priority)[self.tier]

    def write_cursor(self) -> str:
        """Return the opaque text by which the page after this queue is asked for."""
        return base64.urlsafe_b64encode(self.name.encode()).decode().rstrip("=")

    @classmethod
    def read_cursor(cls, text: str) -> QueueName:
        """Read a text from `write_cursor`; raises ValueError for any other text."""
        return cls.read(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode())


@dataclass(frozen=True)
class QueueFilter:
    """The queues that are meant; None in a field matches every queue."""

    model: str | None = None
    owner: str | None = None
    priority: Priority | None = None

    def matches(self, queue: QueueName) -> bool:
        """Whether a queue is meant."""
        pairs = ((self.model, queue.model), (self.owner, queue.owner), (self.priority, queue.priority))
        return all(wanted in (None, actual) for wanted, actual in pairs)


@dataclass(frozen=True)
class QueueState:
    """The jobs that wait in one queue.

    Attributes:
        waiting: number of jobs.
        oldest_seconds: how long the first one has waited.
        predicted_seconds: of one worker's time for all of them; None: nothing was measured yet.
    """

    queue: QueueName
    waiting: int
    oldest_seconds: float
    predicted_seconds: float | None


def find_queues(connection: Redis, filters: QueueFilter) -> list[QueueName]:
    """The names of the queues in which jobs may wait, in order. Raises RedisError."""
    with connection.pipeline(transaction=False) as pipe:
        for tier in Priority:
            pipe.smembers(keys.WAITING + tier.value)
        names = [name for members in pipe.execute() for name in members]
    return sorted(queue for queue in map(QueueName.read, names) if filters.matches(queue))


def read_queues(connection: Redis, queues: Sequence[QueueName]) -> list[QueueState]:
    """How many jobs wait in each of these queues, and how long; without those that are empty by now.

    Raises:
        Unavailable: Redis does not answer.
    """
    with redis_errors_are_unavailable():
        text = Scripts(connection).run(
            "waiting_queues", queues=[queue.name for queue in queues], sample=_SAMPLE_JOBS
        )
    found = json.loads(cast("str", text))
    measurements, now = read_measurements(found["measured"]), float(found["now"])
    states = []
    # Lua writes an empty list as an empty object.
    for queue, row in zip(queues, found["rows"] or (), strict=True):
        if not row["length"]:
            continue
        costs = [measurements.cost_of(work) for work in row["works"] or ()]
        known = [cost.mean_seconds for cost in costs if cost.spread is not None]
        states.append(
            QueueState(
                queue,
                row["length"],
                max(0.0, now - float(row.get("since") or now)),
                row["length"] * sum(known) / len(known) if known else None,
            )
        )
    return states
