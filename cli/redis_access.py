"""What commands share that look into a service's Redis, whether or not the service runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from cli.client import ServiceError
from cli.supervisor.redis_server import RedisServer, find_running
from contracts.errors import DarkroomError
from contracts.redis.connection import connect
from contracts.settings import SharedSettings

_TIMEOUT_SECONDS = 5.0


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """The option that says which service is meant."""
    parser.add_argument(
        "--data",
        type=Path,
        default=SharedSettings.model_fields["data"].default,
        help="folder of `darkroom up`, where DARKROOM_REDIS_URL names no Redis (%(default)s)",
    )


@contextmanager
def open_redis(data: Path) -> Iterator[Redis]:
    """The Redis of the service with these settings, or of `darkroom up` on this folder, running or not.

    Raises:
        ServiceError: anything went wrong, in one line.
    """
    try:
        with _redis(data) as url, connect(url, timeout_seconds=_TIMEOUT_SECONDS, retries=1) as connection:
            yield connection
    except ValidationError as error:
        raise ServiceError("; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())) from error
    except (DarkroomError, RedisError) as error:
        raise ServiceError(str(error)) from error


@contextmanager
def _redis(data: Path) -> Iterator[str]:
    settings = SharedSettings()
    folder = data.resolve() / "redis"
    url = settings.redis_url if "redis_url" in settings.model_fields_set else find_running(folder)
    if url is not None:
        yield url
        return
    server = RedisServer(folder)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()
