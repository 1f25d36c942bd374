"""Statistics of the queue: jobs by state, and how many wait for each model, how long and with how much work.

The scripts count jobs by state in the same step as they change it. Knows no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

from contracts.forecast.backlog import waiting_seconds
from contracts.forecast.snapshot_reader import read_snapshot
from contracts.redis.connection import Scripts
from contracts.requests.schema import Priority


@dataclass(frozen=True)
class QueueDepth:
    """The jobs that wait for one model.

    Attributes:
        waiting: number of jobs.
        oldest_seconds: how long the oldest has waited.
    """

    waiting: int = 0
    oldest_seconds: float = 0.0

    def merged(self, other: QueueDepth) -> QueueDepth:
        """Combine two queues of a model."""
        return QueueDepth(self.waiting + other.waiting, max(self.oldest_seconds, other.oldest_seconds))


@dataclass(frozen=True)
class QueueStats:
    """Statistics of all jobs and webhook messages.

    Attributes:
        jobs: (state, model, task) -> number of jobs; kept at 0 after the last one.
        depths: (model, priority) -> waiting jobs, for each model that ever had one.
        messages: webhook messages that wait to be delivered.
        seconds: model -> predicted seconds of work that waits, for each model that ever had a job.
    """

    jobs: Mapping[tuple[str, str, str], int]
    depths: Mapping[tuple[str, str], QueueDepth]
    messages: int
    seconds: Mapping[str, float]


def read_stats(connection: Redis) -> QueueStats:
    """Read the statistics; `connection` decodes responses. Raises RedisError."""
    scripts = Scripts(connection)
    counted, queues, messages = scripts.run("stats")
    predicted = waiting_seconds(read_snapshot(scripts.run("queue_snapshot")))
    jobs: dict[tuple[str, str, str], int] = {}
    for key, number in zip(counted[::2], counted[1::2], strict=True):
        state, model, task = json.loads(key)
        jobs[state, model, task] = int(number)
    depths = {(model, priority.value): QueueDepth() for _, model, _ in jobs for priority in Priority}
    for tier, model, waiting, oldest_seconds in queues:
        depth = QueueDepth(waiting, float(oldest_seconds))
        depths[model, tier] = depths.get((model, tier), QueueDepth()).merged(depth)
    seconds = {model: predicted.get(model, 0.0) for model, _ in depths}
    return QueueStats(jobs, depths, messages, seconds)
