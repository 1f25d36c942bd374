"""Connections to Redis with timeouts, its errors as the domain's, and the one way to run a Lua script.

Every process connects here, so that each form of URL (`contracts.redis_url`) works in all of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

from redis import Redis, connection
from redis import asyncio as redis_async
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.retry import Retry

from contracts.errors import StorageFull, Unavailable
from contracts.redis import keys
from contracts.redis.failover import make_pool, sentinel_options, tcp_options
from contracts.redis_url import RedisUrl, read_url

_ASYNC_KINDS: dict[type, Any] = {
    connection.Connection: redis_async.Connection,
    connection.SSLConnection: redis_async.SSLConnection,
    connection.UnixDomainSocketConnection: redis_async.UnixDomainSocketConnection,
}

#: Files of functions that all scripts share.
_SHARED_PARTS = ("prelude", "accounts", "snapshot")

_log = logging.getLogger(__name__)


def connect(url: str, *, timeout_seconds: float, retries: int, decode: bool = True) -> Redis:
    """Make a pool of connections, which follow a failover. Connects to nothing yet.

    Args:
        url: of one server or of its Sentinels; `contracts.redis_url` lists the forms.
        timeout_seconds: of one command, and of making a connection: a Redis that hangs must not hang its callers.
        retries: how often a command is sent again when its connection breaks. One retry hides connections that
            a restarted Redis has forgotten. 0 where a command whose answer was lost must not run twice.
        decode: give strings; RQ wants bytes.

    Raises:
        SettingsError: the URL is unusable.
    """
    options = {"decode_responses": decode, **_shared(timeout_seconds), "retry": Retry(NoBackoff(), retries)}
    return Redis.from_pool(make_pool(read_url(url), options))


@asynccontextmanager
async def connected_async(url: str, *, timeout_seconds: float) -> AsyncIterator[redis_async.Redis]:
    """Open connections for an event loop while the block runs; decodes responses, and repeats no command.

    Raises:
        SettingsError: the URL is unusable.
    """
    where = read_url(url)
    options = {**tcp_options(where), **where.options, **_shared(timeout_seconds), "decode_responses": True}
    async with _open_async(where, options | {"retry": AsyncRetry(NoBackoff(), 0)}) as client:
        yield client


@asynccontextmanager
async def _open_async(url: RedisUrl, options: dict[str, Any]) -> AsyncIterator[redis_async.Redis]:
    if not url.sentinels:
        pool = redis_async.ConnectionPool(connection_class=_ASYNC_KINDS[url.kind], **options)
        async with redis_async.Redis.from_pool(pool) as client:
            yield client
        return
    asked = sentinel_options(url) | {"retry": AsyncRetry(NoBackoff(), 0)}
    sentinels = AsyncSentinel(url.sentinels, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    try:
        async with sentinels.master_for(url.primary, ssl=url.is_tls, **options) as client:
            yield client
    finally:
        await sentinels.aclose()


def _shared(timeout_seconds: float) -> dict[str, Any]:
    """The options of connections of both kinds."""
    return {
        "socket_connect_timeout": timeout_seconds,
        "socket_timeout": timeout_seconds,
        "driver_info": _driver_info(),
    }


@cache
def _driver_info() -> DriverInfo:
    """What connections say of themselves in `CLIENT LIST`: each would look up the version of redis-py by itself,
    which takes longer than connecting.
    """
    return DriverInfo()


@contextmanager
def redis_errors_are_unavailable() -> Iterator[None]:
    """Turn errors of Redis into the domain's Unavailable; clients read its message, the log has Redis' own."""
    try:
        yield
    except (redis_errors.ConnectionError, redis_errors.TimeoutError) as error:
        raise Unavailable("the queue (Redis) does not answer") from error
    except redis_errors.RedisError as error:
        if is_memory_full(error):
            raise Unavailable(
                "the queue's memory (Redis) is full; waiting jobs go on, new ones are accepted once others have "
                "ended and expired"
            ) from error
        _log.error("Redis refused a command: %s", error)
        raise Unavailable("the queue (Redis) refused the call; the service's log has the details") from error


def is_memory_full(error: redis_errors.RedisError) -> bool:
    """Whether Redis refused a write because it has reached `maxmemory`; 6.2 words it differently in scripts."""
    return isinstance(error, redis_errors.OutOfMemoryError) or "OOM command not allowed" in str(error)


def unix_seconds(connection: Redis) -> float:
    """The time on Redis' clock, which all processes share."""
    seconds, micros = connection.time()
    return float(seconds + micros / 1e6)


def check_writes(connection: Redis) -> None:
    """Check that Redis accepts writes.

    Raises:
        StorageFull: it refuses them, because it cannot write its append-only file.
        Unavailable: it does not answer, or refuses them for another reason.
    """
    try:
        with redis_errors_are_unavailable():
            connection.set(keys.WRITE_PROBE, "1", ex=60)
    except Unavailable as error:
        if str(error.__cause__).startswith("MISCONF"):
            raise StorageFull(
                "Redis cannot write to its disk, which is full or failing; no jobs are accepted until it can"
            ) from error
        raise


class Scripts:
    """The Lua scripts of `contracts/redis/scripts/`, run on one connection, which decodes responses."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._digests: dict[str, str] = {}

    def run(self, name: str, /, **arguments: Any) -> Any:
        """Run `NAME.lua` as one atomic step.

        Args:
            arguments: of JSON types; the script's `arguments`. An absent field is nil there, a None is not.

        Raises:
            RedisError: it may or may not have run where the connection was lost.
        """
        text = json.dumps(arguments, ensure_ascii=False).encode("utf-8", "replace")
        digest = self._digests.get(name)
        if digest is None:
            digest = self._digests[name] = hashlib.sha1(_source(name).encode(), usedforsecurity=False).hexdigest()
        try:
            return self._connection.evalsha(digest, 0, text)
        except redis_errors.NoScriptError:  # Redis was started since, or this is the first call
            return self._connection.eval(_source(name), 0, text)


@cache
def _source(name: str) -> str:
    """A script's text behind the keys and the functions that all scripts share."""
    folder = files("contracts.redis.scripts")
    parts = ((folder / f"{part}.lua").read_text(encoding="utf-8") for part in (*_SHARED_PARTS, name))
    return "\n".join((keys.lua_table(), *parts))
