"""Pools of connections that find the primary again after a failover. Knows no command.

With Sentinels, each new connection asks them for the primary; behind a DNS name or a load balancer, any new
connection leads there. Either way an old one must no longer be used once its server has become a replica.
"""

from __future__ import annotations

import copy
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection

from contracts.redis_url import RedisUrl

#: One of the Sentinels may be unreachable, and is asked first: the next one is asked after this time.
SENTINEL_SECONDS = 1.0
#: How often a pool in use asks which server is the primary; and after how long again where no Sentinel answers.
_ASK_SECONDS, _NO_ANSWER_SECONDS = 1.0, 10.0


class _FollowsFailover:
    """Mixin of a connection: closes it when its server turns out to be a replica, so that the next one is new."""

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read one answer; a primary that became a replica is an error of the connection, not of the command."""
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except ResponseError as error:
            # Before Redis 7, a script's errors are quoted inside another one.
            if not isinstance(error, ReadOnlyError) and "-READONLY" not in str(error):
                raise
            self.disconnect()  # type: ignore[attr-defined]
            raise RedisConnectionError("this Redis is now a replica; connecting to the primary") from error


class _TcpConnection(_FollowsFailover, Connection):
    pass


class _TlsConnection(_FollowsFailover, SSLConnection):
    pass


class _SocketConnection(_FollowsFailover, UnixDomainSocketConnection):
    pass


class _PrimaryConnection(_FollowsFailover, SentinelManagedConnection):
    pass


class _TlsPrimaryConnection(_FollowsFailover, SentinelManagedConnection, SSLConnection):
    pass


_KINDS: Mapping[type, type] = {
    Connection: _TcpConnection,
    SSLConnection: _TlsConnection,
    UnixDomainSocketConnection: _SocketConnection,
}


class _Sentinels(Sentinel):
    """redis-py's Sentinel, safe in several threads: its list changes order while it is being read."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Ask the Sentinels for the primary's address, the one that answered last first."""
        asked = copy.copy(self)
        asked.sentinels = list(self.sentinels)
        found: tuple[str, int] = Sentinel.discover_master(asked, service_name)  # type: ignore[no-untyped-call]
        self.sentinels = asked.sentinels
        return found


class _PrimaryPool(SentinelConnectionPool):
    """redis-py's pool of connections to the primary, which notices that the primary is another one.

    A connection that was idle while its server was cut off would otherwise be used again when the server is back,
    until the Sentinels have made it a replica: what is written there meanwhile is lost.
    """

    def __init__(self, primary: str, sentinels: Sentinel, **options: Any) -> None:
        super().__init__(primary, sentinels, **options)  # type: ignore[no-untyped-call]
        self._ask_at = 0.0

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        """A connection to the server that was the primary a second ago."""
        if time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + _ASK_SECONDS
            try:
                self.get_master_address()  # type: ignore[no-untyped-call]  # drops idle connections to another one
            except RedisError:  # no Sentinel answers; the primary may do
                self._ask_at = time.monotonic() + _NO_ANSWER_SECONDS
        return super().get_connection(*arguments, **options)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


def make_pool(url: RedisUrl, options: Mapping[str, Any]) -> ConnectionPool:
    """Make a pool; `options` are added to those of the URL. Connects to nothing yet."""
    options = {**tcp_options(url), **url.options, **options}
    if not url.sentinels:
        return ConnectionPool(connection_class=_KINDS[url.kind], **options)
    sentinels = _Sentinels(url.sentinels, sentinel_kwargs=sentinel_options(url) | {"retry": Retry(NoBackoff(), 0)})  # type: ignore[no-untyped-call]
    kind = _TlsPrimaryConnection if url.is_tls else _PrimaryConnection
    return _PrimaryPool(url.primary, sentinels, connection_class=kind, **options)


def sentinel_options(url: RedisUrl) -> dict[str, Any]:
    """redis-py's arguments for connections to Sentinels."""
    timeouts = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
    return {**url.sentinel_options, **timeouts, "ssl": url.is_tls, "decode_responses": True}


def tcp_options(url: RedisUrl) -> dict[str, Any]:
    """Let the kernel notice a machine that is gone: a subscription is silent, and would not notice for hours."""
    if url.kind is UnixDomainSocketConnection:
        return {}
    options = {"socket_keepalive": True}
    if sys.platform != "linux":
        return options
    pace = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
    return {**options, "socket_keepalive_options": pace}
