"""Reads the URL of Redis: one server, or Sentinels that know which server is the primary. Connects to nothing.

    redis://[USER:PASSWORD@]HOST[:PORT][/DB][?OPTIONS]       rediss:// is the same over TLS
    unix://[USER:PASSWORD@]/PATH[?db=DB&OPTIONS]
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/PRIMARY[/DB][?OPTIONS]
    rediss+sentinel://…                                      TLS to the Sentinels and to Redis

USER and PASSWORD are Redis'; the Sentinels' are the options `sentinel_username` and `sentinel_password`. The other
options are redis-py's, above all `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` and `ssl_check_hostname`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.exceptions import RedisError

from contracts.errors import SettingsError

_FORMS = (
    "redis://[USER:PASSWORD@]HOST:PORT/DB (rediss:// with TLS), unix:///PATH, or "
    "redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/PRIMARY/DB (rediss+sentinel:// with TLS)"
)
_SENTINEL_PORT = 26379
#: Options that `connect` sets itself, so that they cannot be given.
_RESERVED = {
    "decode_responses",
    "driver_info",
    "encoding",
    "protocol",
    "retry",
    "socket_timeout",
    "socket_connect_timeout",
}


@dataclass(frozen=True)
class RedisUrl:
    """A URL of Redis, taken apart.

    Attributes:
        options: redis-py's arguments for a connection to Redis; without an address where there are Sentinels.
        kind: redis-py's class of that connection.
        sentinels: host and port of each Sentinel; empty where the URL names the server itself.
        primary: the name under which the Sentinels know the primary.
        sentinel_options: redis-py's arguments for a connection to a Sentinel.
    """

    options: Mapping[str, Any] = field(repr=False)
    kind: type[Connection] | type[UnixDomainSocketConnection]
    sentinels: tuple[tuple[str, int], ...] = ()
    primary: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_tls(self) -> bool:
        """Whether the connections, those to Sentinels too, are encrypted."""
        return issubclass(self.kind, SSLConnection)


def read_url(url: str) -> RedisUrl:
    """Take a URL apart.

    Raises:
        SettingsError: it has no known form, or an option with an unusable value. The message quotes no password.
    """
    try:
        found = _read_sentinels(url) if url.partition("://")[0].endswith("+sentinel") else _read_server(url)
        refused = _RESERVED & found.options.keys()
        if refused:
            raise ValueError(f"the option {min(refused)} cannot be set in the URL")
        found.kind(**found.options, driver_info=None)  # finds unknown options; connects later
        if found.is_tls:
            _check_certificates(found.options)
    except (ValueError, TypeError, RedisError, OSError) as error:
        reason = str(error).partition("__init__() got an ")[2] or str(error)
        raise SettingsError(f"unusable URL of Redis: {reason}. It must be {_FORMS}") from None
    return found


def _read_server(url: str) -> RedisUrl:
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    return RedisUrl(options, options.pop("connection_class", Connection))


def _read_sentinels(url: str) -> RedisUrl:
    parts = urlsplit(url)
    scheme, (credentials, at, hosts) = parts.scheme.removesuffix("+sentinel"), parts.netloc.rpartition("@")
    if scheme not in ("redis", "rediss"):
        raise ValueError(f"the scheme {parts.scheme}:// is unknown")
    primary, _, database = parts.path.strip("/").partition("/")
    if not primary:
        raise ValueError("the path must name the primary as the Sentinels do (sentinel monitor PRIMARY …)")
    if database and not database.isdecimal():
        raise ValueError(f"the database must be a number, got {database!r}")
    # redis-py reads the rest, as it would for one server.
    server = _read_server(f"{scheme}://{credentials}{at}localhost/{database}?{parts.query}")
    options = {name: value for name, value in server.options.items() if name != "host"}
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    shared = {name: value for name, value in options.items() if name.startswith(("ssl_", "socket_"))}
    return RedisUrl(
        options,
        server.kind,
        tuple(_read_host(host) for host in hosts.split(",")),
        unquote(primary),
        shared | {name: value for name, value in own.items() if value is not None},
    )


def _read_host(text: str) -> tuple[str, int]:
    """`HOST`, `HOST:PORT` or `[IPv6]:PORT`."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"a Sentinel's address is HOST:PORT, got {text!r}")
    return parts.hostname, _SENTINEL_PORT if parts.port is None else parts.port


def _check_certificates(options: Mapping[str, Any]) -> None:
    """Read the files now: at the first connection a missing one would look like a Redis that does not answer."""
    context = ssl.create_default_context()
    authorities = {"cafile": options.get("ssl_ca_certs"), "capath": options.get("ssl_ca_path")}
    if any(authorities.values()):
        try:
            context.load_verify_locations(**authorities)
        except OSError as error:
            raise ValueError(f"ssl_ca_certs {options.get('ssl_ca_certs')}: {error}") from None
    if options.get("ssl_certfile") or options.get("ssl_keyfile"):
        files = (options.get("ssl_certfile") or "", options.get("ssl_keyfile"))
        try:
            context.load_cert_chain(*files, password=options.get("ssl_password"))
        except OSError as error:
            raise ValueError(f"ssl_certfile {files[0]}, ssl_keyfile {files[1]}: {error}") from None
