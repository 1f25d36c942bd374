"""What the jobs of each API key and model have used, by day (UTC). Scripts count it as jobs end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import cast

from redis import Redis

from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable, unix_seconds

#: Days that are kept, today included; the scripts say so, too (`USAGE_SECONDS`).
KEPT_DAYS = 92
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Usage:
    """Use by the jobs of one API key with one model on one day.

    Attributes:
        api_key: its id; `anonymous`: callers without a key; empty: jobs that an earlier release accepted.
        model: its id; empty: jobs that were counted by an earlier release.
        jobs: that ended on this day, in whichever state.
        images, image_steps, pixels: of those that completed.
        device_seconds: of workers' time, of all attempts that ended on this day.
        joules: that devices drew in these attempts, as measured or estimated.
        estimated_joules: those of them that are estimates.
    """

    day: date
    api_key: str
    model: str
    jobs: int = 0
    images: int = 0
    image_steps: int = 0
    pixels: int = 0
    device_seconds: float = 0.0
    joules: float = 0.0
    estimated_joules: float = 0.0


def read_usage(connection: Redis, first: date, last: date, api_key: str | None = None) -> list[Usage]:
    """The usage of some days, by day, key and model; `api_key`: only of this one.

    Raises:
        Unavailable: Redis does not answer.
    """
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    with redis_errors_are_unavailable(), connection.pipeline(transaction=False) as pipe:
        for day in days:
            pipe.hgetall(f"{keys.USAGE}{(day - _EPOCH).days}")
        rows = cast("list[Mapping[str, str]]", pipe.execute())
    found = []
    for day, row in zip(days, rows, strict=True):
        figures: dict[tuple[str, str], dict[str, float]] = {}
        for name, value in row.items():
            key, figure, model = [*name.split(" ", 2), ""][:3]
            figures.setdefault((key, model), {})[figure] = float(value)
        found += [_usage(day, *names, figures[names]) for names in sorted(figures) if api_key in (None, names[0])]
    return found


def day_of(seconds: float) -> date:
    """The day (UTC) of a moment in Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC).date()


def today(connection: Redis) -> date:
    """The day on Redis' clock."""
    with redis_errors_are_unavailable():
        return day_of(unix_seconds(connection))


def _usage(day: date, api_key: str, model: str, figures: Mapping[str, float]) -> Usage:
    counts = {name: round(figures.get(name, 0)) for name in ("jobs", "images", "image_steps", "pixels")}

    def rounded(name: str) -> float:
        return round(figures.get(name, 0.0), 3)

    return Usage(
        day,
        api_key,
        model,
        **counts,
        device_seconds=rounded("device_seconds"),
        joules=rounded("joules"),
        estimated_joules=rounded("estimated_joules"),
    )
