"""Limits on what the jobs of one API key use on one day (UTC), checked before a job is queued. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from redis import Redis

from contracts.auth.api_keys import DailyFigure
from contracts.errors import DailyLimitReached
from contracts.queue.usage.counts import day_of, read_usage
from contracts.redis.connection import redis_errors_are_unavailable, unix_seconds
from contracts.requests.task_parameters import TaskParameters

_DAY_SECONDS = 86_400


def require_within(
    connection: Redis, api_key: str, limits: Mapping[DailyFigure, int], job: TaskParameters
) -> None:
    """Refuse a job that would exceed a limit, by what its key's jobs have used today.

    Jobs count on the day of their end, so those that wait and run can exceed a limit together.

    Args:
        limits: figure of `Usage` -> its maximum.

    Raises:
        DailyLimitReached: with the seconds until the next day.
        Unavailable: Redis does not answer.
    """
    if not limits:
        return
    with redis_errors_are_unavailable():
        seconds = unix_seconds(connection)
    day = day_of(seconds)
    rows = read_usage(connection, day, day, api_key)
    own: dict[DailyFigure, int] = {
        "images": len(job.seeds),
        "pixels": job.pixels,
        "image_steps": job.expected_steps * job.num_images,
    }
    for figure, limit in limits.items():
        used = sum(getattr(row, figure) for row in rows)
        if used >= limit or used + own.get(figure, 0) > limit:
            name = figure.replace("_", " ")
            raise DailyLimitReached(f"{limit} {name}", f"{used:g}", _DAY_SECONDS - int(seconds) % _DAY_SECONDS)
