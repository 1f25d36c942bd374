"""The API as a process of its own, on a socket that it inherits."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.forked_programs import ForkedProgram


@contextmanager
def api_process(redis_url: str, data: Path, **settings: str) -> Iterator[tuple[httpx.Client, ForkedProgram]]:
    """The API on an inherited socket, as `darkroom up` starts it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environment = os.environ | {
            "DARKROOM_REDIS_URL": redis_url,
            "DARKROOM_DATA": str(data),
            "DARKROOM_LOG_LEVEL": "warning",  # a line an answer would fill the pipe, which is read at the end
            **settings,
        }
        process = ForkedProgram("app.__main__", environment, listener)
        host, port = listener.getsockname()
    try:
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=60, trust_env=False) as client:
            yield client, process
    finally:
        process.kill()
        process.communicate(timeout=60)  # its pipe is closed once its decoders have ended, too


def has_logged(process: ForkedProgram, words: bytes) -> bool:
    """Whether the process has just logged these words; what has been looked at is gone."""
    handle = process.stderr.fileno()
    return bool(select.select([handle], [], [], 0)[0]) and words in os.read(handle, 65_536)
