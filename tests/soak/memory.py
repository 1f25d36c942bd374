"""Resident memory of a service's parts over time."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from contextlib import suppress

import psutil

from tests.support.running_service import RunningService
from tests.support.service_processes import parts, redis_process

_PAUSE_SECONDS = 1.0


class MemorySampler(threading.Thread):
    """Thread that samples the resident bytes of API, Redis and dispatcher, and the sum of the workers'.

    Attributes:
        samples: part -> (monotonic time, bytes).
    """

    def __init__(self, service: RunningService) -> None:
        super().__init__(name="memory", daemon=True)
        self.samples: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        self._service = service
        self._end = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        while not self._end.wait(_PAUSE_SECONDS):
            with suppress(psutil.Error, IndexError):
                self._sample()

    def stop(self) -> None:
        """End."""
        self._end.set()
        self.join()

    def _sample(self) -> None:
        now = time.monotonic()
        for part, module in (("API", "app"), ("dispatcher", "dispatcher"), ("workers", "worker")):
            found = parts(self._service, module)
            self.samples[part].append((now, sum(process.memory_info().rss for process in found)))
        self.samples["Redis"].append((now, redis_process(self._service).memory_info().rss))

    def highest(self, part: str, begin: float, end: float) -> int:
        """The largest sample between two times; 0 where there is none."""
        return max((size for at, size in self.samples[part] if begin <= at <= end), default=0)
