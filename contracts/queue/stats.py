"""How many jobs there are in each state, how many wait for each model, and for how long; one look at Redis.

The scripts count a job in and out of its states in the same step as they change it. Knows no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

from contracts.redis.connection import Scripts
from contracts.requests.schema import Priority


@dataclass(frozen=True)
class QueueDepth:
    """Who waits for one model.

    Attributes:
        waiting: jobs.
        oldest_seconds: for how long the first of them has waited.
    """

    waiting: int = 0
    oldest_seconds: float = 0.0

    def joined(self, other: QueueDepth) -> QueueDepth:
        """Two lines as one."""
        return QueueDepth(self.waiting + other.waiting, max(self.oldest_seconds, other.oldest_seconds))


@dataclass(frozen=True)
class QueueStats:
    """All jobs that are known, and what is told of them.

    Attributes:
        jobs: (state, model, task) -> how many; nought stays once it was more.
        lines: (model, priority) -> who waits, for each model that ever had a job.
        messages: of webhooks, neither delivered nor given up yet.
    """

    jobs: Mapping[tuple[str, str, str], int]
    lines: Mapping[tuple[str, str], QueueDepth]
    messages: int


def take_census(connection: Redis) -> QueueStats:
    """Look; `connection` decodes responses, and may raise RedisError."""
    counted, queues, messages = Scripts(connection).run("stats")
    jobs: dict[tuple[str, str, str], int] = {}
    for key, number in zip(counted[::2], counted[1::2], strict=True):
        state, model, task = json.loads(key)
        jobs[state, model, task] = int(number)
    lines = {(model, priority.value): QueueDepth() for _, model, _ in jobs for priority in Priority}
    for tier, model, waiting, oldest_seconds in queues:
        line = QueueDepth(waiting, float(oldest_seconds))
        lines[model, tier] = lines.get((model, tier), QueueDepth()).joined(line)
    return QueueStats(jobs, lines, messages)
