"""The addresses that clients may make the service connect to, for webhooks and input images: a guard against SSRF.

A name is resolved once, each of its addresses is checked against the operator's rules, and the connection goes to
a checked address, without another look-up and without redirects. Sends nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from contracts.errors import DestinationRefused, DestinationUnknown
from contracts.processes.background import BackgroundThread
from contracts.settings import OutboundSettings

Address = IPv4Address | IPv6Address

_PORTS = {"https": 443, "http": 80}
#: Lower ports except 80 and 443 are refused, because other services listen there and would be sent HTTP.
_FIRST_FREE_PORT = 1024
#: Public according to IANA, but refused: the metadata services of Azure and Oracle Cloud, and 6to4 relays.
_NEVER = [ip_network(text) for text in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24")]
#: IPv6 addresses whose last 32 bits are the IPv4 address that a NAT64 gateway connects to (RFC 6052).
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Destination:
    """A URL from a client, split into its parts.

    Attributes:
        host: an ASCII name or a literal address, without brackets.
        target: path and query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Value of the Host header."""
        host = _bracketed(self.host)
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def site(self) -> str:
        """Host and port, which identify a receiver."""
        return f"{self.host}:{self.port}"

    def pinned(self, address: Address) -> str:
        """The URL with a checked address in place of the name; Host header and TLS still use the name."""
        return f"{self.scheme}://{_bracketed(str(address))}:{self.port}{self.target}"


def read_destination(url: str, rules: OutboundSettings) -> Destination:
    """Split a URL, and check everything that can be checked without resolving its name.

    Raises:
        DestinationRefused: not an http(s) URL, or one that the operator's rules do not allow.
    """
    if any(character <= " " or character in "\\\x7f" for character in url):
        raise DestinationRefused("must not contain spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port
    except ValueError:
        raise DestinationRefused("is not a valid URL; expected https://host/path") from None
    if parts.scheme not in _PORTS or not name:
        raise DestinationRefused("is not a valid URL; expected https://host/path")
    if parts.username is not None or parts.password is not None:
        raise DestinationRefused("must not contain a user name or password")
    port = _PORTS[parts.scheme] if port is None else port
    if port not in _PORTS.values() and port < _FIRST_FREE_PORT:
        raise DestinationRefused(f"must use port 443, 80 or one from {_FIRST_FREE_PORT} up, got {port}")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    destination = Destination(parts.scheme, _ascii(name), port, target)
    literal = _literal(destination.host)
    if literal is not None:
        check_addresses(destination, [literal], rules)
    return destination


def resolve(destination: Destination, rules: OutboundSettings) -> list[Address]:
    """Return the addresses to try, in order, after checking all of them.

    Raises:
        DestinationRefused: one of them is not allowed.
        DestinationUnknown: the name has no address, or did not resolve in time.
    """
    literal = _literal(destination.host)
    addresses = [literal] if literal is not None else _look_up(destination, rules.resolve_seconds)
    check_addresses(destination, addresses, rules)
    return addresses


def check_addresses(destination: Destination, addresses: Sequence[Address], rules: OutboundSettings) -> None:
    """Raise DestinationRefused if any of a name's addresses is not allowed."""
    for address in addresses:
        is_allowed = _is_allowed(address, rules)
        if not (is_allowed or all(map(_is_public, _targets(address)))):
            raise DestinationRefused(_no_public_address(destination))
        if destination.scheme == "http" and not (is_allowed or rules.http):
            raise DestinationRefused("must be https; http is not allowed to this address")


def _is_allowed(address: Address, rules: OutboundSettings) -> bool:
    return all(any(target in network for network in rules.networks) for target in _targets(address))


def _is_public(address: Address) -> bool:
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not (isinstance(address, IPv6Address) and address.is_site_local)
        and not any(address in network for network in _NEVER)
    )


def _targets(address: Address) -> Iterator[Address]:
    """Yield the addresses that are reached: a gateway may unpack an IPv4 address embedded in an IPv6 one."""
    if isinstance(address, IPv4Address):
        yield address
    elif address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address in _NAT64:
        yield IPv4Address(int(address) & 0xFFFF_FFFF)
    else:
        yield address
        if address.sixtofour is not None:
            yield address.sixtofour
        yield from address.teredo or ()


def _look_up(destination: Destination, seconds: float) -> list[Address]:
    def query() -> list[Address]:
        found = socket.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
        return [ip_address(address[0]) for *_, address in found]

    # The system's resolver cannot be interrupted; the thread ends when it does.
    resolver = BackgroundThread("resolver")
    answer = resolver.submit(query)
    resolver.close(timeout_seconds=0)
    wait([answer], seconds)
    if not answer.done():
        raise DestinationUnknown(f"{destination.host} did not resolve in time", is_final=False)
    try:
        return list(dict.fromkeys(answer.result()))
    except (OSError, ValueError) as error:
        is_final = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
        raise DestinationUnknown(_no_public_address(destination), is_final=is_final) from None


def _no_public_address(destination: Destination) -> str:
    """The same for names that do not exist and for those of internal hosts, so that nobody learns which exist."""
    if _literal(destination.host) is not None:
        return f"{destination.host} is a private or reserved address, which is not allowed"
    return f"{destination.host} does not exist or has a private or reserved address, which is not allowed"


def _ascii(name: str) -> str:
    try:
        return str(ip_address(name)) if ":" in name else name.encode("idna").decode("ascii").lower()
    except ValueError:
        raise DestinationRefused(f"{name[:80]!r} is not a valid host name") from None


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
