"""Full disks without a disk of their own: a limit on the size of files refuses what a full disk would."""

from __future__ import annotations

import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from cli.supervisor.redis_server import find_server


@contextmanager
def full_disk() -> Iterator[None]:
    """In the block, writes of this process, and of children that it starts, are refused as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def redis_on_a_small_disk(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Redis server with an append-only file; gives its URL, and its process for `fill`."""
    socket = folder / "redis.sock"
    command = [
        find_server(), "--port", "0", "--unixsocket", socket, "--dir", folder, "--appendonly", "yes",
        "--appendfsync", "everysec", "--save", "", "--logfile", folder / "redis.log",
    ]  # fmt: skip
    process = subprocess.Popen(
        [str(part) for part in command], preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    )
    url = f"unix://{socket}"
    try:
        deadline = time.monotonic() + 60
        while not _answers(url):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield url, process
    finally:
        process.kill()
        process.wait()


def fill(server: subprocess.Popen[bytes], url: str) -> None:
    """Stop the server's files from growing, and wait until it refuses to write for that reason."""
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    deadline = time.monotonic() + 60
    with Redis.from_url(url) as connection:
        while True:
            try:
                connection.set("darkroom:probe", "1")
            except RedisError as error:
                if str(error).startswith("MISCONF"):
                    return
                raise
            assert time.monotonic() < deadline
            time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        with Redis.from_url(url) as connection:
            return bool(connection.ping())
    except RedisError:
        return False
