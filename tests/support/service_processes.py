"""The processes of a `darkroom up`, for tests that break them."""

from __future__ import annotations

import re

import psutil
from redis import Redis

from tests.support.running_service import RunningService


def parts(service: RunningService, module: str) -> list[psutil.Process]:
    """Return the service's processes of one kind: `app`, `worker` or `dispatcher`."""
    children = psutil.Process(service.process.pid).children()
    # Those that were forked have that name, and the command line of the tests.
    return [child for child in children if child.name() == module or child.cmdline()[1:3] == ["-m", module]]


def redis_process(service: RunningService) -> psutil.Process:
    """Return the service's own Redis process; raises IndexError while it does not run."""
    children = psutil.Process(service.process.pid).children(recursive=True)
    servers = [child for child in children if "redis-server" in " ".join(child.cmdline())]
    return servers[0]


def redis_url(service: RunningService) -> str:
    """Return the URL of its socket, which is in the process title."""
    found = _SOCKET.search(" ".join(redis_process(service).cmdline()))
    if found is None:
        raise IndexError("the server does not listen yet")
    return f"unix://{found[1]}"


def is_registered(url: str, pid: int) -> bool:
    """Whether a worker or dispatcher of this Redis has started completely: RQ's tools list it, and it beats."""
    with Redis.from_url(url, decode_responses=True) as connection:
        return any(f"-{pid}-" in name for name in connection.smembers("rq:workers"))


def is_alive(pid: int) -> bool:
    """Whether a process is running; a zombie is not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


_SOCKET = re.compile(r"unixsocket[: ](\S+)")
