"""Refuses what a web page makes a browser send to a service without API keys, which trusts every caller.

A page may name its own host and let that name resolve to 127.0.0.1 (DNS rebinding), and it may post to other sites
without reading the answer. With API keys neither helps it, since it has no key. Knows no route.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from fastapi import Request

from app.errors import HostRefused, OriginRefused
from app.settings import ApiSettings, is_loopback

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_FOREIGN_SITES = frozenset({"cross-site", "same-site"})
#: A name or an IPv6 address in brackets, and a port: what browsers send. A URL has further parts, a Host has none.
_AUTHORITY = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?", re.ASCII)


def refuse_foreign_page(request: Request, settings: ApiSettings) -> None:
    """Check who a request says that it is for and, if it changes something, which page it comes from.

    Raises:
        HostRefused: it is for a host that is not this service.
        OriginRefused: it comes from a page of another origin.
    """
    authority = request.headers.get("host", "")
    if not _is_served(_name_of(authority), settings):
        raise HostRefused(
            f"this service is not {authority[:80]!r}; address it as localhost, or name the host in "
            "DARKROOM_API_PUBLIC_URL or DARKROOM_API_ALLOWED_HOSTS, or create API keys: `darkroom keys create`"
        )
    refuse_foreign_origin(request, settings)


def refuse_foreign_origin(request: Request, settings: ApiSettings) -> None:
    """Check which page a request comes from that changes something, where pages need no secret of their own.

    Raises:
        OriginRefused: it comes from a page of another origin.
    """
    authority = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if origin in settings.cors_origins:
        return
    # No page can read an answer that does not name its origin. Where the setting names all, the origin decides.
    if request.method in _READING and not (origin is not None and "*" in settings.cors_origins):
        return
    is_foreign = request.headers.get("sec-fetch-site", "").lower() in _FOREIGN_SITES
    if is_foreign or not (origin is None or _is_own(origin, authority, settings)):
        raise OriginRefused(
            f"a web page of {(origin or 'another site')[:80]!r} may not use this service without an API key "
            "of its own; name it in DARKROOM_API_CORS_ORIGINS, or send a key (`darkroom keys create`) as "
            "`Authorization: Bearer KEY`"
        )


def _is_served(name: str, settings: ApiSettings) -> bool:
    if is_loopback(name) or name.endswith(".localhost"):
        return True
    if settings.public_url is not None and name == settings.public_url.host:
        return True
    # Where the operator serves everybody on a network, clients use addresses; rebinding needs a name.
    return name in settings.allowed_hosts or (settings.allow_anonymous and _is_address(name))


def _is_own(origin: str, authority: str, settings: ApiSettings) -> bool:
    """Whether an origin is this service; a proxy in front of it may have changed the scheme."""
    parts = urlsplit(origin)
    if parts.scheme in ("http", "https") and parts.netloc.lower() == authority.lower():
        return True
    public = settings.public_url
    return public is not None and origin.rstrip("/") == f"{public.scheme}://{_authority_of(str(public))}"


def _authority_of(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.removesuffix({"http": ":80", "https": ":443"}.get(parts.scheme, ""))


def _name_of(authority: str) -> str:
    """The host in lower case, without port, brackets and the dot of an absolute name; empty if it is not one."""
    if _AUTHORITY.fullmatch(authority) is None:
        return ""
    try:
        return (urlsplit(f"//{authority}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
