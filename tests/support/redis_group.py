"""A primary, its replicas and their Sentinels as real processes on loopback, which tests may kill and restart."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import trustme
from redis import Redis
from redis.exceptions import RedisError

from cli.supervisor.redis_server import find_server
from contracts.redis.connection import connect

PRIMARY = "darkroom"
PASSWORD = "s3cret"
_WAIT_SECONDS = 60.0


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that must happen by itself; errors of Redis count as "not yet"."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except RedisError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"did not happen in {_WAIT_SECONDS:g} s: {what}")


class Certificates:
    """A certificate authority, and certificates for servers on loopback and for a client, as PEM files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        self.authority, self.server, self.client = (folder / f"{name}.pem" for name in ("ca", "server", "client"))
        authority.cert_pem.write_to_path(str(self.authority))
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
            str(self.server)
        )
        authority.issue_cert("client@darkroom.test").private_key_and_cert_chain_pem.write_to_path(str(self.client))

    def options(self) -> dict[str, str]:
        """The options of a URL by which a client knows the server, and shows who it is."""
        names = {"ca_certs": self.authority, "certfile": self.client, "keyfile": self.client}
        return {f"ssl_{name}": str(path) for name, path in names.items()}


@dataclass
class Process:
    """One redis-server or Sentinel."""

    name: str
    port: int
    command: list[str]
    log: Path
    running: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Run it, as it was run before."""
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(self.command, stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        """Stop it, let it go on, or kill it."""
        assert self.running is not None
        self.running.send_signal(number)
        if number == signal.SIGKILL:
            self.running.wait()


class RedisGroup:
    """One primary and its replicas, with Sentinels if asked for.

    Attributes:
        servers: the primary comes first, until the Sentinels choose another one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        binary: Path | None = None,
        replicas: int = 1,
        sentinels: int = 0,
        certificates: Certificates | None = None,
        settings: tuple[str, ...] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._binary = folder, binary or find_server()
        self._certificates = certificates
        self._settings = settings
        self.servers = [self._server(f"redis{number}") for number in range(replicas + 1)]
        self.sentinels = [self._process(f"sentinel{number}") for number in range(sentinels)]

    def start(self) -> None:
        """Start all; returns when the replicas follow the primary, and the Sentinels know everybody."""
        for server in self.servers:
            self._write_server(server)
            server.start()
            wait_until(lambda server=server: self.connect_to(server).ping(), f"{server.name} answers")  # type: ignore[misc]
        replicas = len(self.servers) - 1
        wait_until(lambda: self.replica_count(self.servers[0]) == replicas, "the replicas follow")
        for sentinel in self.sentinels:
            self._write_sentinel(sentinel)
            sentinel.start()
        for sentinel in self.sentinels:
            wait_until(lambda sentinel=sentinel: self._is_informed(sentinel), f"{sentinel.name} knows everybody")  # type: ignore[misc]

    def close(self) -> None:
        """Kill all."""
        for process in (*self.sentinels, *self.servers):
            if process.running is not None and process.running.poll() is None:
                process.signal(signal.SIGKILL)

    @property
    def url(self) -> str:
        """The URL of the primary: through the Sentinels, if there are any."""
        if not self.sentinels:
            return self.url_of(self.servers[0])
        scheme, options = ("redis", {}) if self._certificates is None else ("rediss", self._certificates.options())
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        options["sentinel_password"] = PASSWORD
        return f"{scheme}+sentinel://:{PASSWORD}@{hosts}/{PRIMARY}/0?{urlencode(options)}"

    def connect_to(self, process: Process) -> Redis:
        """A connection to one server or Sentinel."""
        return connect(self.url_of(process), timeout_seconds=2, retries=0)

    def url_of(self, process: Process) -> str:
        """The URL of one server or Sentinel."""
        if self._certificates is None:
            return f"redis://:{PASSWORD}@127.0.0.1:{process.port}"
        return f"rediss://:{PASSWORD}@127.0.0.1:{process.port}?{urlencode(self._certificates.options())}"

    def replica_count(self, server: Process) -> int:
        """How many replicas follow a server."""
        with self.connect_to(server) as connection:
            found: int = connection.info("replication")["connected_slaves"]
            return found

    def primary(self) -> Process:
        """The server that the Sentinels send clients to."""
        with connect(self.url, timeout_seconds=5, retries=0) as connection:
            connection.ping()
            port = connection.info("server")["tcp_port"] or connection.config_get("tls-port")["tls-port"]
        return next(server for server in self.servers if server.port == int(port))

    # -- files ----------------------------------------------------------------------------------------

    def _process(self, name: str) -> Process:
        config = self._folder / f"{name}.conf"
        command = [str(self._binary), str(config)] + (["--sentinel"] if name.startswith("sentinel") else [])
        return Process(name, free_port(), command, self._folder / f"{name}.log")

    def _server(self, name: str) -> Process:
        (self._folder / name).mkdir(exist_ok=True)
        return self._process(name)

    def _write_server(self, server: Process) -> None:
        lines = [
            *self._listen(server), f"dir {self._folder / server.name}", "appendonly yes", "appendfsync everysec",
            "save ''", "maxmemory-policy noeviction", f"masterauth {PASSWORD}", "repl-diskless-sync-delay 0",
            "replica-serve-stale-data yes", *self._settings,
        ]  # fmt: skip
        if server is not self.servers[0]:
            lines.append(f"replicaof 127.0.0.1 {self.servers[0].port}")
        self._write(server, lines)

    def _write_sentinel(self, sentinel: Process) -> None:
        quorum = len(self.sentinels) // 2 + 1
        self._write(sentinel, [
            *self._listen(sentinel), f"dir {self._folder}", f"sentinel sentinel-pass {PASSWORD}",
            f"sentinel monitor {PRIMARY} 127.0.0.1 {self.servers[0].port} {quorum}",
            f"sentinel auth-pass {PRIMARY} {PASSWORD}", f"sentinel down-after-milliseconds {PRIMARY} 1000",
            f"sentinel failover-timeout {PRIMARY} 5000", f"sentinel parallel-syncs {PRIMARY} 1",
        ])  # fmt: skip

    def _listen(self, process: Process) -> list[str]:
        lines = ["bind 127.0.0.1", f"requirepass {PASSWORD}", "daemonize no"]
        if self._certificates is None:
            return [*lines, f"port {process.port}"]
        files = self._certificates
        return [
            *lines, "port 0", f"tls-port {process.port}", f"tls-ca-cert-file {files.authority}",
            f"tls-cert-file {files.server}", f"tls-key-file {files.server}", "tls-auth-clients yes",
            "tls-replication yes",
        ]  # fmt: skip

    def _write(self, process: Process, lines: list[str]) -> None:
        path = self._folder / f"{process.name}.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.chmod(0o600)

    def _is_informed(self, sentinel: Process) -> bool:
        with self.connect_to(sentinel) as connection:
            known = connection.sentinel_master(PRIMARY)
        return bool(
            known["num-slaves"] == len(self.servers) - 1
            and known["num-other-sentinels"] == len(self.sentinels) - 1
            and known["flags"] == "master"
        )
