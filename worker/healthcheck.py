"""`python -m worker.healthcheck`: a container's health check: has the worker of this host reported lately?

Imports neither torch nor diffusers, since it runs every few seconds.
"""

from __future__ import annotations

import os
import sys

from redis.exceptions import RedisError

from contracts.errors import DarkroomError
from contracts.processes.workers import read_workers
from contracts.redis.connection import connect
from contracts.settings import SharedSettings

_TIMEOUT_SECONDS = 5.0


def main() -> int:
    """Return 0 if a worker of this host has reported; otherwise print why and return 1."""
    try:
        settings = SharedSettings()
        with connect(settings.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=0) as connection:
            alive = any(report.host == os.uname().nodename for report in read_workers(connection))
    except (DarkroomError, RedisError) as error:
        print(f"unhealthy: {error}", file=sys.stderr)  # noqa: T201
        return 1
    if not alive:
        print("unhealthy: no worker of this host has reported", file=sys.stderr)  # noqa: T201
    return 0 if alive else 1


if __name__ == "__main__":
    sys.exit(main())
