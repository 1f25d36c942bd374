"""Connections to Redis, with bounds in time: a Redis that hangs must not hang a request or a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.retry import Retry

from contracts.errors import Unavailable


def connect(url: str, *, timeout_seconds: float, retries: int, decode: bool = True) -> Redis:
    """A pool of connections.

    Args:
        url: redis://, rediss:// or unix://.
        timeout_seconds: of one command; a connection gets as long to be made.
        retries: how often a command is sent again when its connection breaks. One retry hides connections that
            a restarted Redis has forgotten. Nought where a command whose answer was lost must not run twice.
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
    """Turns a lost or refusing Redis into the domain's Unavailable."""
    try:
        yield
    except (redis_errors.ConnectionError, redis_errors.TimeoutError) as error:
        raise Unavailable("the queue (Redis) does not answer") from error
    except redis_errors.RedisError as error:
        raise Unavailable(f"the queue (Redis) refused: {error}") from error
