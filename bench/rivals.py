"""Who is measured by `bench.overhead`: a bare loop, Darkroom without and with batches, and LitServe.

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
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.mixes import COMPANY_MILLISECONDS, Order, to_base64, to_body
from bench.painter import Painter

_READY_SECONDS = 180.0
_TIMEOUT_SECONDS = 600.0
_SETTLE_SECONDS = 1.5
#: Clients that send at the same time when as much is asked as can be made.
CLIENTS = 16


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

    def __init__(self, name: str, root: psutil.Process, ask: Callable[[Order], None], clients: int) -> None:
        self.name = name
        self._root = root
        self._ask = ask
        self._clients = clients

    def run(self, orders: Sequence[Order]) -> Run:
        """As many images a second as it can make."""
        with self._awake(), ThreadPoolExecutor(self._clients) as clients:
            cpu, begun = self._cpu_seconds(), time.perf_counter()
            list(clients.map(self._ask, orders))
            seconds = time.perf_counter() - begun
            return Run(len(orders) / seconds, (self._cpu_seconds() - cpu) / len(orders))

    def latencies(self, orders: Sequence[Order], per_second: float) -> list[float]:
        """Seconds from when each order was due, at an even rate, so that who stalls is not spared its pause."""

        def ask(due: float, order: Order) -> float:
            self._ask(order)
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
            time.sleep(_SETTLE_SECONDS)  # connections that fell silent are made again
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


def bare_loop() -> Rival:
    """One image after another, in the order in which they were asked for."""
    painter, turn = Painter(), threading.Lock()

    def ask(order: Order) -> None:
        with turn:
            _check(to_base64(painter.paint([order])[0]))

    return Rival("bare loop", psutil.Process(), ask, clients=1)


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
            Rival("Darkroom, one by one", root, lambda order: ask(order, False), CLIENTS),
            Rival(f"Darkroom, batches of {batch}", root, lambda order: ask(order, True), CLIENTS),
        ]


@contextmanager
def litserve(batch: int) -> Iterator[Rival]:
    """`bench.litserve_server`."""
    port = _free_port()
    command = ["-m", "bench.litserve_server", str(port), str(batch)]
    with _process(command, {}, f"http://127.0.0.1:{port}/health") as root, _client(port) as http:

        def ask(order: Order) -> None:
            _check(http.post("/predict", json=vars(order)).raise_for_status().json()["b64_json"])

        yield Rival(f"LitServe, batches of {batch}", root, ask, CLIENTS)


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
