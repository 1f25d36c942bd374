"""One POST to a receiver: over TLS, to the address that was checked, within the timeout."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
import trustme

from contracts.errors import DestinationRefused, DestinationUnknown
from contracts.settings import OutboundSettings
from dispatcher.http_client import Answer, Poster
from tests.support.hosts import certify, resolve_as, trust_authority
from tests.support.receiver import Receiver, Reply, receiving

LOCAL = OutboundSettings.model_validate({"networks": ["127.0.0.0/8", "::1/128"]})


def post(url: str, rules: OutboundSettings = LOCAL, timeout_seconds: float = 10) -> Answer:
    async def run() -> Answer:
        poster = Poster(rules, timeout_seconds)
        try:
            return await poster.post(url, b"{}", {"webhook-id": "msg_1"})
        finally:
            await poster.close()

    return asyncio.run(run())


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    return trust_authority(tmp_path, monkeypatch)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_a_receiver_with_a_certificate_for_its_name_is_trusted(authority: trustme.CA) -> None:
    with receiving(certify(authority, "localhost")) as receiver:
        assert post(f"https://localhost:{receiver.port}/hook").status_code == 200

        (request,) = receiver.received
        assert request.headers["host"] == f"localhost:{receiver.port}"
        assert (request.path, request.body) == ("/hook", b"{}")


def test_a_receiver_with_a_certificate_for_its_address_is_trusted(authority: trustme.CA) -> None:
    with receiving(certify(authority, "127.0.0.1")) as receiver:
        assert post(f"https://127.0.0.1:{receiver.port}/hook").status_code == 200


def test_a_receiver_with_another_hosts_certificate_is_refused(authority: trustme.CA) -> None:
    with receiving(certify(authority, "other.example")) as receiver:
        with pytest.raises(httpx.ConnectError, match="certificate"):
            post(f"https://localhost:{receiver.port}/hook")

        assert not receiver.received


def test_two_names_with_the_same_address_never_share_a_connection(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one receiver would get the other's messages over a connection whose certificate was its own."""
    for name in ("one.example", "two.example"):
        resolve_as(monkeypatch, name, ["127.0.0.1"])
    with receiving(certify(authority, "one.example")) as receiver:

        async def run() -> None:
            poster = Poster(LOCAL, 10)
            await poster.post(f"https://one.example:{receiver.port}/", b"{}", {})
            with pytest.raises(httpx.ConnectError):
                await poster.post(f"https://two.example:{receiver.port}/", b"{}", {})
            await poster.close()

        asyncio.run(run())
        assert [request.headers["host"] for request in receiver.received] == [f"one.example:{receiver.port}"]


def test_a_name_is_resolved_once_and_the_checked_address_is_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: a second lookup would return another address."""
    lookups = resolve_as(monkeypatch, "rebind.example", ["127.0.0.1"], ["10.0.0.1"])

    assert post(f"http://rebind.example:{receiver.port}/hook").status_code == 200
    assert len(lookups) == 1


def test_the_next_address_is_tried_when_a_connection_is_refused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_as(monkeypatch, "both.example", ["127.0.0.2", "127.0.0.1"])

    assert post(f"http://both.example:{receiver.port}/hook").status_code == 200


def test_proxies_of_the_environment_are_ignored(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)

        assert post(f"{receiver.url}/hook").status_code == 200
        assert not proxy.received


def test_no_connection_is_made_to_an_address_that_is_not_allowed(receiver: Receiver) -> None:
    with pytest.raises(DestinationRefused):
        post(f"{receiver.url}/hook", OutboundSettings())
    with pytest.raises((DestinationRefused, DestinationUnknown)):
        post(f"https://localhost:{receiver.port}/hook", OutboundSettings())

    assert not receiver.received


def test_slow_response_headers_time_out() -> None:
    """Each byte arrives within the timeout, but the headers never end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(TimeoutError):
            post(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_seconds=0.5)
        thread.join()


def test_the_body_of_a_response_is_not_read(receiver: Receiver) -> None:
    receiver.plans["/hook"] = [Reply(body=b"x" * 1000, pause_seconds=0.1)]

    assert post(f"{receiver.url}/hook", timeout_seconds=5).status_code == 200


@pytest.mark.parametrize(
    ("delay", "least", "most"),
    [("120", 120, 120), ("0", 0, 0), (timedelta(hours=1), 3000, 3600), (timedelta(hours=-1), 0, 0)],
)
def test_retry_after_is_read_as_seconds_and_as_a_date(
    receiver: Receiver, delay: str | timedelta, least: int, most: int
) -> None:
    text = delay if isinstance(delay, str) else format_datetime(datetime.now(UTC) + delay, usegmt=True)
    receiver.plans["/hook"] = [Reply(503, {"Retry-After": text})]

    answer = post(f"{receiver.url}/hook")

    assert answer.retry_after_seconds is not None
    assert least <= answer.retry_after_seconds <= most


@pytest.mark.parametrize(
    "delay", ["soon", "-5", "1.5", "²", "Thu, 99 Foo 2026", f"Mon, 01 Jan {10**20} 00:00:00 GMT"]
)
def test_an_invalid_retry_after_is_ignored(receiver: Receiver, delay: str) -> None:
    receiver.plans["/hook"] = [Reply(503, {"Retry-After": delay.encode().decode("latin-1")})]

    assert post(f"{receiver.url}/hook") == Answer(503, None)
