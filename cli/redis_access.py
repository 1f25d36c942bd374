"""Opens the Redis of a running service for the administration commands, and says which service that is."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from cli.client import ServiceError
from cli.supervisor.redis_server import find_running
from contracts.errors import DarkroomError
from contracts.redis.access import check_access, without_secrets
from contracts.redis.connection import connect
from contracts.settings import SharedSettings, explain

_TIMEOUT_SECONDS = 5.0


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the service's data folder."""
    parser.add_argument(
        "--data",
        type=Path,
        default=default_data(),
        help="data folder of the running `darkroom up`; ignored when DARKROOM_REDIS_URL is set (%(default)s)",
    )


def default_data() -> Path:
    """The data folder where no option names one: DARKROOM_DATA, or `data` in the current folder."""
    return Path(os.environ.get("DARKROOM_DATA") or SharedSettings.model_fields["data"].default)


@contextmanager
def open_redis(data: Path) -> Iterator[Redis]:
    """Connect to the Redis of DARKROOM_REDIS_URL, or to that of the `darkroom up` that runs on this folder.

    Prints to stderr which service that is: a key in another service's Redis would protect nothing here.

    Raises:
        ServiceError: no service runs there, settings are invalid, or Redis does not answer; one line.
    """
    try:
        url, name = _find_service(data.resolve())
    except ValidationError as error:
        raise ServiceError(explain(error)) from error
    except DarkroomError as error:
        raise ServiceError(str(error)) from error
    try:
        with connect(url, timeout_seconds=_TIMEOUT_SECONDS, retries=1) as connection:
            yield connection
    except ValidationError as error:
        raise ServiceError("; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())) from error
    except (DarkroomError, RedisError) as error:
        raise ServiceError(f"{error} (service: {name})") from error
    print(f"service: {name}", file=sys.stderr)


def _find_service(data: Path) -> tuple[str, str]:
    """The URL of a running service's Redis, and what to call the service."""
    settings = SharedSettings()
    if "redis_url" in settings.model_fields_set:
        name = without_secrets(settings.redis_url)
        if not check_access(settings.redis_url):
            raise ServiceError(f"DARKROOM_REDIS_URL {name}: Redis does not answer there")
        return settings.redis_url, name
    url = find_running(data / "redis")
    if url is None:
        raise ServiceError(
            f"no service runs on {data}; start it with `darkroom up --data {data}`, name the folder of a running "
            "one with --data, or set DARKROOM_REDIS_URL"
        )
    return url, str(data)
