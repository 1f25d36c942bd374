"""Random failures of a running service, from a seed: workers, the dispatcher, Redis, connections."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import psutil
from redis import Redis
from redis.exceptions import RedisError

from tests.support.running_service import RunningService
from tests.support.service_processes import parts, redis_process, redis_url


class Monkey(threading.Thread):
    """Thread that causes one failure after another until it is stopped.

    Attributes:
        failures: how often each failure was caused.
    """

    def __init__(self, service: RunningService, seed: int, pause_seconds: tuple[float, float]) -> None:
        super().__init__(name="monkey", daemon=True)
        self.failures: Counter[str] = Counter()
        self._service = service
        self._random = random.Random(seed)
        self._pause_seconds = pause_seconds
        self._end = threading.Event()
        self._weights: dict[Callable[[], None], int] = {
            self._kill_worker: 3,
            self._freeze_worker: 2,
            self._drain_worker: 2,
            self._kill_dispatcher: 2,
            self._kill_redis: 2,
            self._cut_connections: 3,
        }

    def run(self) -> None:
        """Cause failures, with pauses between them."""
        while not self._end.wait(self._random.uniform(*self._pause_seconds)):
            (action,) = self._random.choices(list(self._weights), weights=list(self._weights.values()))
            with suppress(psutil.NoSuchProcess, IndexError, RedisError):
                action()
                self.failures[action.__name__.strip("_")] += 1

    def stop(self) -> None:
        """Stop causing failures."""
        self._end.set()
        self.join()

    def _worker(self) -> psutil.Process:
        return self._random.choice(parts(self._service, "worker"))

    def _kill_worker(self) -> None:
        self._worker().kill()

    def _freeze_worker(self) -> None:
        """Suspend a worker, perhaps for longer than its lease, and resume it."""
        worker = self._worker()
        worker.suspend()
        time.sleep(self._random.uniform(0.5, 5))
        worker.resume()

    def _drain_worker(self) -> None:
        self._worker().terminate()

    def _kill_dispatcher(self) -> None:
        parts(self._service, "dispatcher")[0].kill()

    def _kill_redis(self) -> None:
        redis_process(self._service).kill()

    def _cut_connections(self) -> None:
        with Redis.from_url(redis_url(self._service)) as connection:
            connection.client_kill_filter(_type="normal", skipme=True)
