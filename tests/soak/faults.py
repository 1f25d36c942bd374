"""Faults of a running service, one after another, from a seed: kills, hangs, a full disk, a full Redis."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
from redis import Redis
from redis.exceptions import RedisError

from tests.support.running_service import RunningService
from tests.support.service_processes import is_registered, parts, redis_process, redis_url

_FULL_SECONDS = 15.0
#: Time for the service to be ready after a fault: a hung process ends after DARKROOM_HANG_SECONDS, then restarts.
_READY_SECONDS = 240.0


class Faults(threading.Thread):
    """Thread that causes faults until it is stopped; after each one, it waits until the service is ready.

    Attributes:
        caused: fault -> count.
        begun: (monotonic, fault) of each.
        outages: begin and end (monotonic) of each time in which the API, Redis or the disk was broken on purpose.
        problems: what did not recover.
    """

    def __init__(self, service: RunningService, seed: int, reserve_bytes: int) -> None:
        super().__init__(name="faults", daemon=True)
        self.caused: Counter[str] = Counter()
        self.begun: list[tuple[float, str]] = []
        self.outages: list[tuple[float, float]] = []
        self.recovery_seconds: dict[str, float] = {}
        self.problems: list[str] = []
        self._service, self._reserve_bytes = service, reserve_bytes
        self._random = random.Random(seed)
        self._end = threading.Event()

    def run(self) -> None:
        """Cause each fault once in a random order, then again in another one."""
        faults: list[Callable[[], None]] = [
            self.kill_worker, self.kill_api, self.kill_dispatcher, self.kill_redis, self.fill_disk,
            self.fill_redis, self.stop_worker, self.spin_worker, self.spin_api,
        ]  # fmt: skip
        while not self._end.is_set():
            self._random.shuffle(faults)
            for fault in faults:
                if self._end.wait(self._random.uniform(2, 8)):
                    return
                try:
                    began = time.monotonic()
                    self.begun.append((began, fault.__name__))
                    fault()
                    self.caused[fault.__name__] += 1
                    self._wait_until_ready(fault.__name__, began)
                except (psutil.NoSuchProcess, IndexError, RedisError):
                    continue  # what it was to break is being restarted
                except psutil.TimeoutExpired:
                    self.problems.append(f"{fault.__name__}: the process still lives after {_READY_SECONDS:g} s")

    def stop(self) -> None:
        """Cause no more; returns when the last one is undone."""
        self._end.set()
        self.join()

    def _wait_until_ready(self, fault: str, began: float) -> None:
        while time.monotonic() - began < _READY_SECONDS:
            with suppress(httpx.HTTPError):
                if self._service.http.get("/readyz", timeout=5).status_code == 200:
                    seconds = time.monotonic() - began
                    self.recovery_seconds[fault] = max(seconds, self.recovery_seconds.get(fault, 0.0))
                    return
            time.sleep(0.5)
        self.problems.append(f"{fault}: not ready after {_READY_SECONDS:g} s")

    # -- faults ---------------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        """SIGKILL."""
        self._any("worker").kill()

    def kill_dispatcher(self) -> None:
        """SIGKILL."""
        self._any("dispatcher").kill()

    def kill_api(self) -> None:
        """SIGKILL; `up` starts another one on the same socket."""
        with self._outage():
            began = time.monotonic()
            self._any("app").kill()
            self._wait_until_ready("kill_api", began)

    def kill_redis(self) -> None:
        """SIGKILL; the append-only file has everything but the last second or two."""
        with self._outage():
            with Redis.from_url(redis_url(self._service)) as connection:
                connection.config_set("appendfsync", "always")  # from here on nothing that is accepted is lost
            time.sleep(1.5)
            began = time.monotonic()
            redis_process(self._service).kill()
            self._wait_until_ready("kill_redis", began)

    def stop_worker(self) -> None:
        """SIGSTOP, and nobody continues it."""
        worker = self._started_worker()
        worker.suspend()
        worker.wait(_READY_SECONDS)

    def spin_worker(self) -> None:
        """Native code that keeps the interpreter's lock and never returns."""
        worker = self._started_worker()
        worker.send_signal(signal.SIGUSR1)
        worker.wait(_READY_SECONDS)

    def spin_api(self) -> None:
        """The same in the API."""
        api = self._any("app")  # it has started: it was ready after the last fault
        with self._outage():
            began = time.monotonic()
            api.send_signal(signal.SIGUSR1)
            api.wait(_READY_SECONDS)
            self._wait_until_ready("spin_api", began)

    def fill_disk(self) -> None:
        """A file that takes so much that less than the reserve is left."""
        ballast = self._service.data / "ballast"
        with self._outage():
            free = os.statvfs(ballast.parent).f_bavail * os.statvfs(ballast.parent).f_frsize
            _allocate(ballast, max(1, free - self._reserve_bytes + 2**28))
            time.sleep(_FULL_SECONDS)
            ballast.unlink()
            self._wait_until_ready("fill_disk", time.monotonic())

    def fill_redis(self) -> None:
        """Redis may have no more memory than it uses now."""
        with self._outage(), Redis.from_url(redis_url(self._service)) as connection:
            before = connection.config_get("maxmemory")["maxmemory"]
            connection.config_set("maxmemory", connection.info("memory")["used_memory"])
            time.sleep(_FULL_SECONDS)
            connection.config_set("maxmemory", before)

    def _any(self, module: str) -> psutil.Process:
        return self._random.choice(parts(self._service, module))

    def _started_worker(self) -> psutil.Process:
        """A worker that has sent its first beat: one that hangs before that is given ten minutes."""
        while not is_registered(redis_url(self._service), (worker := self._any("worker")).pid):
            time.sleep(1)
        return worker

    @contextmanager
    def _outage(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.outages.append((began, time.monotonic() + 2))


def _allocate(path: Path, size: int) -> None:
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
