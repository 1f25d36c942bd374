"""Connections to Redis with timeouts, its errors as the domain's, and the one way to run a Lua script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

from redis import Redis
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from contracts.errors import Unavailable
from contracts.redis import keys


def connect(url: str, *, timeout_seconds: float, retries: int, decode: bool = True) -> Redis:
    """Make a pool of connections.

    Args:
        url: redis://, rediss:// or unix://.
        timeout_seconds: of one command, and of making a connection: a Redis that hangs must not hang its callers.
        retries: how often a command is sent again when its connection breaks. One retry hides connections that
            a restarted Redis has forgotten. 0 where a command whose answer was lost must not run twice.
        decode: give strings; RQ wants bytes.
    """
    return Redis.from_url(
        url,
        decode_responses=decode,
        socket_connect_timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), retries),
    )


@contextmanager
def redis_errors_are_unavailable() -> Iterator[None]:
    """Turn errors of Redis into the domain's Unavailable."""
    try:
        yield
    except (redis_errors.ConnectionError, redis_errors.TimeoutError) as error:
        raise Unavailable("the queue (Redis) does not answer") from error
    except redis_errors.RedisError as error:
        raise Unavailable(f"the queue (Redis) refused: {error}") from error


class Scripts:
    """The Lua scripts of `contracts/redis/scripts/`, run on one connection, which decodes responses."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._loaded: dict[str, Script] = {}

    def run(self, name: str, /, **arguments: Any) -> Any:
        """Run `NAME.lua` as one atomic step.

        Args:
            arguments: of JSON types; the script's `arguments`. An absent field is nil there, a None is not.

        Raises:
            RedisError: it may or may not have run where the connection was lost.
        """
        script = self._loaded.get(name)
        if script is None:
            script = self._loaded[name] = self._connection.register_script(_source(name))
        return script(args=[json.dumps(arguments)])


@cache
def _source(name: str) -> str:
    """A script's text behind the keys and the functions that all scripts share."""
    folder = files("contracts.redis.scripts")
    parts = ((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("prelude", name))
    return "\n".join((keys.lua_table(), *parts))
