"""Names of hosts in tests: certificates for them, and a name service that changes its mind.

The name service is the one part of a connection that cannot be had for real on any machine.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme


def trust_authority(folder: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A new certificate authority that clients of this process trust."""
    authority, file = trustme.CA(), folder / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return authority


def certify(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """What a server of that name serves with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def resolve_as(monkeypatch: pytest.MonkeyPatch, name: str, *answers: list[str]) -> list[str]:
    """Let a name resolve to these addresses, look-up after look-up; returns the list of look-ups to come."""
    system, asked = socket.getaddrinfo, list[str]()

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        if host != name:
            return system(host, *rest, **more)
        asked.append(host)
        answer = answers[min(len(asked), len(answers)) - 1]
        return [place for address in answer for place in system(address, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked
