"""Destinations: addresses in every notation, names that change, and the networks that the settings allow."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from typing import Any

import pytest

from contracts.errors import DestinationRefused, DestinationUnknown
from contracts.outbound.addresses import read_destination, resolve
from contracts.settings import OutboundSettings
from tests.support.hosts import resolve_as

STRICT = OutboundSettings()


def rules(*networks: str, **more: Any) -> OutboundSettings:
    return OutboundSettings.model_validate({"networks": networks, **more})


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16", "192.0.2.1", "198.18.0.1", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "[::]", "[::1]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]",
        "[ff02::1]", "[2001:db8::1]", "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[::127.0.0.1]",
        "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[2001:0:7f00:1::]",
        "[2001:0:808:808:0:0:80ff:fffe]",
    ],
)  # fmt: skip
def test_a_private_or_reserved_address_is_refused_in_any_notation(host: str) -> None:
    with pytest.raises(DestinationRefused, match="private or reserved"):
        read_destination(f"https://{host}/hook", STRICT)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "LOCALHOST."])
def test_a_name_for_this_machine_is_refused_when_it_is_resolved(host: str) -> None:
    destination = read_destination(f"https://{host}/hook", STRICT)

    with pytest.raises((DestinationRefused, DestinationUnknown)):
        resolve(destination, STRICT)


@pytest.mark.parametrize(
    "url",
    [
        "", "hook", "/hook", "//example.org/", "ftp://example.org/", "file:///etc/passwd", "gopher://example.org/",
        "https://", "https:///path", "https://:443/", "https://example.org:x/", "https://example.org:99999/",
        "https://[::1/", "https://user@example.org/", "https://user:word@example.org/", "https://exa mple.org/",
        "https://example.org/\r\nHost: x", "https://example.org\\@127.0.0.1/", "https://a..b/",
        f"https://{'a' * 64}/",
        "https://example.org:22/", "https://example.org:0/", "https://example.org:25/",
    ],
)  # fmt: skip
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(DestinationRefused):
        read_destination(url, STRICT)


@pytest.mark.parametrize(
    ("url", "authority", "site", "pinned"),
    [
        ("https://Example.org", "example.org", "example.org:443", "https://8.8.8.8:443/"),
        ("https://example.org:8443/a?b=c#d", "example.org:8443", "example.org:8443", "https://8.8.8.8:8443/a?b=c"),
        (
            "https://bücher.example/x",
            "xn--bcher-kva.example",
            "xn--bcher-kva.example:443",
            "https://8.8.8.8:443/x",
        ),
        ("https://[2606:4700::0001]:8443/", "[2606:4700::1]:8443", "2606:4700::1:8443", "https://8.8.8.8:8443/"),
    ],
)
def test_a_url_is_parsed_and_pinned_to_an_address(url: str, authority: str, site: str, pinned: str) -> None:
    found = read_destination(url, STRICT)

    assert (found.authority, found.site) == (authority, site)
    assert found.pinned(ip_address("8.8.8.8")) == pinned
    assert found.pinned(ip_address("2606:4700::1")).startswith("https://[2606:4700::1]:")


def test_http_needs_permission_from_the_settings() -> None:
    with pytest.raises(DestinationRefused, match="must be https"):
        read_destination("http://8.8.8.8/", STRICT)

    read_destination("http://8.8.8.8/", rules(http=True))
    read_destination("http://8.8.8.8/", rules("8.8.8.0/24"))
    read_destination("http://10.1.2.3/", rules("10.0.0.0/8"))
    read_destination("https://[::1]:8443/", rules("::1/128"))


def test_only_the_allowed_networks_are_allowed() -> None:
    for url in (
        "https://10.1.0.1/",
        "https://127.0.0.1/",
        "https://[::ffff:10.1.0.1]/",
        "https://[2002:a00:1::]/",
    ):
        with pytest.raises(DestinationRefused):
            read_destination(url, rules("10.0.0.0/16", http=True))
    read_destination("https://[::ffff:10.0.0.1]/", rules("10.0.0.0/16"))


def test_a_name_is_refused_if_any_of_its_addresses_is(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_as(monkeypatch, "mixed.example", ["8.8.8.8", "10.0.0.1"])

    with pytest.raises(DestinationRefused, match=r"mixed\.example does not exist or has a private"):
        resolve(read_destination("https://mixed.example/", STRICT), STRICT)


def test_a_refusal_does_not_tell_whether_an_internal_name_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(addresses: list[str]) -> str:
        def look_up(*_: object, **__: object) -> Any:
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "no")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with pytest.raises((DestinationRefused, DestinationUnknown)) as refused:
            resolve(read_destination("https://vault.internal/", STRICT), STRICT)
        return str(refused.value)

    assert refusal(["10.0.0.1"]) == refusal(["127.0.0.1"]) == refusal([])


def test_a_name_that_does_not_exist_or_does_not_resolve_in_time_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(number: int) -> Any:
        def look_up(*_: object, **__: object) -> Any:
            raise socket.gaierror(number, "no")

        return look_up

    stuck = threading.Event()
    destination = read_destination("https://a.example/", STRICT)
    for look_up, is_final in (
        (fail(socket.EAI_NONAME), True),
        (fail(socket.EAI_AGAIN), False),
        (lambda *_, **__: [stuck.wait(10)][:0], False),
    ):
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with pytest.raises(DestinationUnknown) as unknown:
            resolve(destination, rules(resolve_seconds=0.2))
        assert unknown.value.is_final is is_final
    stuck.set()
