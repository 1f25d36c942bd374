"""Opens a service's Redis for the administration commands, whether or not the service is running."""

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
    """Add the option that names the service's data folder."""
    parser.add_argument(
        "--data",
        type=Path,
        default=SharedSettings.model_fields["data"].default,
        help="data folder of `darkroom up`; ignored when DARKROOM_REDIS_URL is set (%(default)s)",
    )


@contextmanager
def open_redis(data: Path) -> Iterator[Redis]:
    """Connect to the Redis of DARKROOM_REDIS_URL, or to that of `darkroom up` on this folder, running or not.

    Raises:
        ServiceError: settings are invalid, or Redis does not answer; one line.
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
