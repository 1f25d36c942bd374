"""Connections over TLS, and connections whose server becomes a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from cli.supervisor.redis_server import RedisServer
from contracts.redis.connection import Scripts, connect, connected_async
from tests.support.redis_group import Certificates, free_port
from tests.support.tls_proxy import tls_proxy


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "certificates")


@pytest.fixture
def port(redis_url: str, redis_server: RedisServer, certificates: Certificates) -> Iterator[int]:
    """Of a Redis that speaks TLS, and wants a client's certificate."""
    with tls_proxy(redis_server.socket, certificates) as port:
        yield port


def test_certificates_in_the_url_let_both_kinds_of_clients_in(port: int, certificates: Certificates) -> None:
    url = f"rediss://localhost:{port}/0?{urlencode(certificates.options())}"
    with connect(url, timeout_seconds=5, retries=0) as connection:
        assert Scripts(connection).run("idempotency_release", key="x", token="y") == 1

    async def ping() -> bool:
        async with connected_async(url, timeout_seconds=5) as client:
            return bool(await client.ping())

    assert asyncio.run(ping())


def test_a_server_of_another_authority_is_refused(port: int, tmp_path: Path) -> None:
    url = f"rediss://localhost:{port}/0?{urlencode(Certificates(tmp_path / 'other').options())}"
    with connect(url, timeout_seconds=5, retries=0) as connection, pytest.raises(RedisConnectionError):
        connection.ping()


def test_a_client_without_a_certificate_is_refused(port: int, certificates: Certificates) -> None:
    url = f"rediss://localhost:{port}/0?ssl_ca_certs={certificates.authority}"
    with connect(url, timeout_seconds=5, retries=0) as connection, pytest.raises(RedisConnectionError):
        connection.ping()


def test_a_connection_whose_server_has_become_a_replica_is_made_again(redis_url: str) -> None:
    with connect(redis_url, timeout_seconds=5, retries=0) as connection:
        scripts, before = Scripts(connection), connection.client_id()
        scripts.run("idempotency_begin", key="k", fingerprint="f", token="t", lease_milliseconds=1000)
        connection.replicaof("127.0.0.1", str(free_port()))
        try:
            with pytest.raises(RedisConnectionError, match="now a replica"):
                scripts.run("idempotency_release", key="k", token="t")
            with pytest.raises(RedisConnectionError, match="now a replica"):
                connection.set("a", "b")
        finally:
            connection.replicaof("NO", "ONE")
        assert scripts.run("idempotency_release", key="k", token="t") == 1
        assert connection.client_id() != before
