"""The server processes that benches measure."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx
import psutil

_READY_SECONDS = 180


@dataclass(frozen=True)
class Server:
    """A server process on loopback, with the processes that it started."""

    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Processor time used so far by all its processes."""
        every = (self.process, *self.process.children(recursive=True))
        return float(sum(times.user + times.system for times in (process.cpu_times() for process in every)))


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def serve(command: list[str], port: int, ready: str, environment: Mapping[str, str]) -> Iterator[Server]:
    """Run a Python command until the block ends; the block begins once the path `ready` answers 2xx.

    Raises:
        RuntimeError: the command ended or was not ready in time; the message is what it printed.
    """
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(
            [sys.executable, *command], env={**os.environ, **environment}, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + _READY_SECONDS
            while not _answers(port, ready):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(log.read().decode(errors="replace"))
                time.sleep(0.1)
            yield Server(port, process)
        finally:
            with suppress(psutil.NoSuchProcess):
                children = process.children(recursive=True)
                process.terminate()
                process.wait(60)
                for child in psutil.wait_procs(children, timeout=10)[1]:
                    child.kill()


@contextmanager
def darkroom(environment: Mapping[str, str]) -> Iterator[Server]:
    """`darkroom up` with one worker of one compute thread."""
    usual = {"DARKROOM_LOG_LEVEL": "warning", "DARKROOM_WORKER_CPU_THREADS": "1"}
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        command = ["-m", "cli.main", "up", "--port", str(port), "--data", data]
        with serve(command, port, "/readyz", {**usual, **environment}) as server:
            yield server


@contextmanager
def litserve(batch: int) -> Iterator[Server]:
    """`bench.litserve_server`."""
    port = free_port()
    command = ["-m", "bench.litserve_server", str(port), str(batch)]
    with serve(command, port, "/health", {"PYTHONWARNINGS": "ignore"}) as server:
        yield server


def _answers(port: int, path: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).is_success
    return False
