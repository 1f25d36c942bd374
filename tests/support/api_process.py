"""`python -m app` as a process of its own, on a socket that it inherits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx


@contextmanager
def api_process(
    redis_url: str, data: Path, **settings: str
) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """The API on an inherited socket, as `darkroom up` starts it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environment = os.environ | {
            "DARKROOM_REDIS_URL": redis_url,
            "DARKROOM_DATA": str(data),
            "DARKROOM_API_FD": str(listener.fileno()),
            "DARKROOM_LOG_LEVEL": "warning",  # a line an answer would fill the pipe, which is read at the end
            **settings,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "app"],
            env=environment,
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        host, port = listener.getsockname()
    try:
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=20, trust_env=False) as client:
            yield client, process
    finally:
        process.kill()
        process.communicate()
