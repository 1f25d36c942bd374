"""Who is measured by `bench.overhead`: a bare loop, Darkroom and LitServe, with batches and without.

All answer the same orders with PNG files. Whoever is not measured right now is suspended, so that it takes nothing
of the machine.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.mixes import COMPANY_MILLISECONDS, Order, mixed_prompts, to_base64, to_body
from bench.painter import Painter

_READY_SECONDS = 180.0
_TIMEOUT_SECONDS = 600.0
#: Clients that send at the same time when as much is asked as can be made.
CLIENTS = 16
#: What a server that has stood still answers before it is measured.
_WAKING = mixed_prompts(1, first=-1)


@dataclass(frozen=True)
class Run:
    """What one list of orders took.

    Attributes:
        cpu_seconds: of the rival's processes, an image.
    """

    per_second: float
    cpu_seconds: float


class Rival:
    """A server, or the bare loop in this process."""

    def __init__(self, name: str, root: psutil.Process, ask: Callable[[Sequence[Order]], None]) -> None:
        """`ask` returns when all these orders, which are asked for at once, are answered."""
        self.name = name
        self._root = root
        self._ask = ask

    def run(self, orders: Sequence[Order]) -> Run:
        """As many images a second as it can make."""
        with self._awake():
            cpu, begun = self._cpu_seconds(), time.perf_counter()
            self._ask(orders)
            seconds = time.perf_counter() - begun
            return Run(len(orders) / seconds, (self._cpu_seconds() - cpu) / len(orders))

    def latencies(self, orders: Sequence[Order], per_second: float) -> list[float]:
        """Seconds from when each order was due, at an even rate, so that who stalls is not spared its pause."""

        def ask(due: float, order: Order) -> float:
            self._ask([order])
            return time.perf_counter() - due

        with self._awake(), ThreadPoolExecutor(len(orders)) as clients:
            begun, asked = time.perf_counter(), []
            for number, order in enumerate(orders):
                due = begun + number / per_second
                time.sleep(max(0.0, due - time.perf_counter()))
                asked.append(clients.submit(ask, due, order))
            return [one.result() for one in asked]

    @contextmanager
    def _awake(self) -> Iterator[None]:
        others = self._processes() if self._root.pid != os.getpid() else []
        for process in others:
            process.resume()
        if others:
            self._ask(_WAKING)  # connections that fell silent are made again
        try:
            yield
        finally:
            for process in others:
                process.suspend()

    def _processes(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def _cpu_seconds(self) -> float:
        processes = [self._root] if self._root.pid == os.getpid() else self._processes()
        return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def bare_loops(batch: int) -> list[Rival]:
    """In the order in which they were asked for: one image after another, and as many as one call may make."""
    painter, turn = Painter(), threading.Lock()

    def ask(orders: Sequence[Order], at_once: int) -> None:
        with turn:
            for first in range(0, len(orders), at_once):
                for image in painter.paint(orders[first : first + at_once]):
                    _check(to_base64(image))

    return [
        Rival("bare loop", psutil.Process(), partial(ask, at_once=1)),
        Rival(f"bare loop, batches of {batch}", psutil.Process(), partial(ask, at_once=batch)),
    ]


@contextmanager
def darkroom(data: Path, batch: int) -> Iterator[list[Rival]]:
    """`darkroom up` with one worker; orders that may share a call, and orders that may not."""
    environment = {
        "DARKROOM_WORKER_CPU_THREADS": "1",
        "DARKROOM_WORKER_MAX_BATCH_IMAGES": str(batch),
        "DARKROOM_WORKER_BATCHING": str(COMPANY_MILLISECONDS),
    }
    port = _free_port()
    command = ["-m", "cli.main", "up", "--port", str(port), "--data", str(data)]
    with _process(command, environment, f"http://127.0.0.1:{port}/readyz") as root, _client(port) as http:

        def ask(order: Order, batchable: bool) -> None:
            body, wait = to_body(order, batchable), {"Prefer": "wait=60"}
            answer = http.post(f"/v1/{order.task}", json=body, headers=wait).raise_for_status()
            while answer.status_code == httpx.codes.ACCEPTED or answer.json()["status"] in ("queued", "running"):
                answer = http.get(f"/v1/jobs/{answer.json()['id']}").raise_for_status()
            _check(answer.json()["images"][0]["b64_json"])

        yield [
            Rival("Darkroom, one by one", root, _by_clients(lambda order: ask(order, False))),
            Rival(f"Darkroom, batches of {batch}", root, _by_clients(lambda order: ask(order, True))),
        ]


@contextmanager
def litserve(batch: int) -> Iterator[Rival]:
    """`bench.litserve_server`."""
    port = _free_port()
    command = ["-m", "bench.litserve_server", str(port), str(batch)]
    with _process(command, {}, f"http://127.0.0.1:{port}/health") as root, _client(port) as http:

        def ask(order: Order) -> None:
            _check(http.post("/predict", json=vars(order)).raise_for_status().json()["b64_json"])

        yield Rival(f"LitServe, batches of {batch}", root, _by_clients(ask))


def _by_clients(ask: Callable[[Order], None]) -> Callable[[Sequence[Order]], None]:
    """Orders that several clients send at the same time."""

    def ask_all(orders: Sequence[Order]) -> None:
        with ThreadPoolExecutor(min(CLIENTS, len(orders))) as clients:
            list(clients.map(ask, orders))

    return ask_all


def _check(encoded: str) -> None:
    if not base64.b64decode(encoded).startswith(b"\x89PNG"):
        raise RuntimeError("the answer is no PNG")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _client(port: int) -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=_TIMEOUT_SECONDS, limits=limits, trust_env=False) as http:
        yield http


@contextmanager
def _process(command: list[str], environment: dict[str, Any], ready: str) -> Iterator[psutil.Process]:
    """A server and all that it starts, from when it is ready to the end of the block; stopped meanwhile."""
    quiet = {"DARKROOM_LOG_LEVEL": "warning", "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        [sys.executable, *command], env={**os.environ, **quiet, **environment}, stdout=subprocess.DEVNULL
    )
    root = psutil.Process(process.pid)
    try:
        _wait_until(process, ready)
        for one in (root, *root.children(recursive=True)):
            one.suspend()
        yield root
    finally:
        family = [root, *root.children(recursive=True)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.resume()
        process.terminate()
        process.wait(60)
        for one in psutil.wait_procs(family, timeout=10)[1]:
            one.kill()


def _wait_until(process: subprocess.Popen[bytes], ready: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with status {process.returncode}")
        try:
            if httpx.get(ready, timeout=5, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{process.args} was not ready in time")
