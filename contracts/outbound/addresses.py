"""Where the service may connect to on a client's word. A name is resolved once, every address that it has is held
against the operator's rules, and what was checked is what is connected to: no second look-up, no redirect.

Webhooks and fetched pictures go through here. Knows the standard library alone, and sends nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from contracts.background import BackgroundThread
from contracts.errors import DestinationRefused, DestinationUnknown
from contracts.settings import OutboundSettings

Address = IPv4Address | IPv6Address

_PORTS = {"https": 443, "http": 80}
#: Below it only the two of the web: what listens on the others never asked for HTTP.
_FIRST_FREE_PORT = 1024
#: Public by the registry, but inside a cloud: the metadata services of Azure and Oracle; and 6to4's relays.
_NEVER = [ip_network(text) for text in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24")]
#: IPv6 addresses whose last 32 bits are an IPv4 address that a gateway connects to (RFC 6052).
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Destination:
    """An address that a client named, in its parts.

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
        """What the Host header says."""
        host = _bracketed(self.host)
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def site(self) -> str:
        """Who is behind it, as far as one can tell: what counts as one receiver."""
        return f"{self.host}:{self.port}"

    def pinned(self, address: Address) -> str:
        """The URL at one of its checked addresses. Host header and TLS name must still be the name's."""
        return f"{self.scheme}://{_bracketed(str(address))}:{self.port}{self.target}"


def read_destination(url: str, rules: OutboundSettings) -> Destination:
    """Take an address apart, and refuse what can be refused without looking its name up.

    Raises:
        DestinationRefused: no http(s) address, or one that the operator's rules do not allow.
    """
    if any(character <= " " or character in "\\\x7f" for character in url):
        raise DestinationRefused("holds spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port
    except ValueError:
        raise DestinationRefused("is no address; write https://host/path") from None
    if parts.scheme not in _PORTS or not name:
        raise DestinationRefused("is no address; write https://host/path")
    if parts.username is not None or parts.password is not None:
        raise DestinationRefused("holds a user name or password; leave them out")
    port = _PORTS[parts.scheme] if port is None else port
    if port not in _PORTS.values() and port < _FIRST_FREE_PORT:
        raise DestinationRefused(f"names port {port}; 443, 80 and those from {_FIRST_FREE_PORT} on are allowed")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    destination = Destination(parts.scheme, _ascii(name), port, target)
    literal = _literal(destination.host)
    if literal is not None:
        check_addresses(destination, [literal], rules)
    return destination


def resolve(destination: Destination, rules: OutboundSettings) -> list[Address]:
    """The addresses to try, in order; each of them was checked.

    Raises:
        DestinationRefused: one of them is not allowed.
        DestinationUnknown: the name has no address, or none was learned in time.
    """
    literal = _literal(destination.host)
    addresses = [literal] if literal is not None else _look_up(destination, rules.resolve_seconds)
    check_addresses(destination, addresses, rules)
    return addresses


def check_addresses(destination: Destination, addresses: Sequence[Address], rules: OutboundSettings) -> None:
    """Raises DestinationRefused where one of a name's addresses is not allowed: a name is as good as its worst."""
    for address in addresses:
        is_allowed = _is_allowed(address, rules)
        if not (is_allowed or all(map(_is_public, _meanings(address)))):
            raise DestinationRefused(f"{destination.host} is a private or reserved address, which is not allowed")
        if destination.scheme == "http" and not (is_allowed or rules.http):
            raise DestinationRefused("must be https; http is not allowed to this address")


def _is_allowed(address: Address, rules: OutboundSettings) -> bool:
    return all(any(one in network for network in rules.networks) for one in _meanings(address))


def _is_public(address: Address) -> bool:
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not (isinstance(address, IPv6Address) and address.is_site_local)
        and not any(address in network for network in _NEVER)
    )


def _meanings(address: Address) -> Iterator[Address]:
    """Whom one may reach by it: an IPv6 address may carry an IPv4 one for somebody on the way to unpack."""
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
    def ask() -> list[Address]:
        found = socket.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
        return [ip_address(address[0]) for *_, address in found]

    # The system's resolver cannot be interrupted; the thread ends when it does.
    resolver = BackgroundThread("resolver")
    answer = resolver.submit(ask)
    resolver.close(timeout_seconds=0)
    wait([answer], seconds)
    if not answer.done():
        raise DestinationUnknown(f"{destination.host} did not resolve in time", is_final=False)
    try:
        return list(dict.fromkeys(answer.result()))
    except (OSError, ValueError) as error:
        is_final = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
        raise DestinationUnknown(f"{destination.host} has no address", is_final=is_final) from None


def _ascii(name: str) -> str:
    try:
        return str(ip_address(name)) if ":" in name else name.encode("idna").decode("ascii").lower()
    except ValueError:
        raise DestinationRefused(f"{name[:80]!r} is no host name") from None


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
