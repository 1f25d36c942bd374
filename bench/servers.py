"""The processes that `bench/api.py` measures: an API, the bare route, and hands that end jobs as workers do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis import Redis

from contracts.queue.leases import ClaimCriteria, Claims
from contracts.queue.records import JobState, Progress
from contracts.settings import QueueSettings

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A server process on loopback."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Processor time that it has used, by Linux' account."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_bytes(self) -> int:
        """Memory that it holds."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE


@contextmanager
def serve(command: list[str], redis_url: str, data: Path, port: int, path: str) -> Iterator[Server]:
    """A server until the block ends; it is there once `path` is answered."""
    environment = os.environ | {
        "DARKROOM_REDIS_URL": redis_url,
        "DARKROOM_DATA": str(data),
        "DARKROOM_API_PORT": str(port),
        "DARKROOM_API_MAX_WAITING": "1000000",
    }
    with (data / f"{port}.log").open("w") as log:
        process = subprocess.Popen([sys.executable, *command], env=environment, stderr=log, stdout=log)
    try:
        while not _answers(port, path):
            if process.poll() is not None:
                raise RuntimeError((data / f"{port}.log").read_text())
            time.sleep(0.1)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).is_success
    except httpx.HTTPError:
        return False


def drain(redis_url: str, pause_seconds: float) -> None:
    """One simulated worker: claims jobs and ends them at once, until it is killed."""
    with Redis.from_url(redis_url, decode_responses=True) as connection:
        claims = Claims(connection, QueueSettings(), "simulated", ttl_seconds=86_400)
        while True:
            taken = claims.claim(ClaimCriteria())
            for claim in taken:
                claims.finish(claim, JobState.COMPLETED, images=[])
            if not taken:
                time.sleep(pause_seconds)


def run_all(redis_url: str, steps: int, pause_seconds: float) -> None:
    """One simulated worker that runs all waiting jobs side by side, a report of each after each step."""
    with Redis.from_url(redis_url, decode_responses=True) as connection:
        claims = Claims(connection, QueueSettings(), "simulated", ttl_seconds=86_400)
        taken = []
        while batch := claims.claim(ClaimCriteria()):
            taken += batch
        for step in range(1, steps + 1):
            time.sleep(pause_seconds)
            claims.advance(taken, Progress(step=step, steps=steps, fraction=step / steps))
        for claim in taken:
            claims.finish(claim, JobState.COMPLETED, images=[])
