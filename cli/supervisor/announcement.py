"""Tells people how the start of a service goes on: devices, models and their plans, and when it is ready.

Reads the workers' reports, and the API's readiness once one of them can work. Changes nothing. What a worker does
meanwhile is in its own log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import httpx
from redis import Redis, RedisError

from cli.supervisor.start_report import StartReport, describe_devices, describe_models
from contracts.catalogue.catalogue import Catalogue
from contracts.errors import CatalogueError
from contracts.hub.source import HubSource
from contracts.jobs.preparations import FAILED, Preparation
from contracts.processes.workers import WorkerReport, obstacle, read_workers
from contracts.redis.connection import connect

#: Interval between two looks at the workers' reports, and the same once a model is being fetched.
_POLL_SECONDS = 0.1
_LOOK_SECONDS = 1.0
_TIMEOUT_SECONDS = 5.0


#: What helps where the default model is on this machine and cannot be loaded.
_REMEDY = "fix that, or set another default_model in the catalogue; it is tried again every minute"


class Announcement:
    """Printer of what a person at the terminal waits for: `ready URL`, once a job would be run.

    Before that, `preparing URL` while the default model is prepared, or `failed URL: WHY` where no worker can
    load it.

    Attributes:
        refusal: why the default model cannot be had from its hub; None as long as it can.
    """

    def __init__(self, url: str, redis_url: str, catalogue: Catalogue, workers: int = 1) -> None:
        """`url` is the API's; `workers`: how many are being started."""
        self.refusal: str | None = None
        self._url = url
        self._catalogue = catalogue
        self._model = catalogue.default_model
        self._is_on_hub = _is_on_hub(catalogue)
        self._workers = workers
        self._redis_url = redis_url
        self._report = StartReport()
        self._is_described = False
        self._is_preparing = False
        self._failure = ""

    def run(self, is_closing: Callable[[], bool]) -> None:
        """Print until the service is ready, cannot become ready, or is closed."""
        with connect(self._redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=0) as connection:
            while not is_closing() and self.refusal is None:
                reports = _read(connection)
                self._describe(reports)
                obstacles = self._find_obstacles(reports)
                if obstacles:
                    self._tell(obstacles)
                elif obstacles is not None and self._is_ready():
                    self._describe(reports, is_last=True)
                    print(f"ready {self._url}", flush=True)
                    self._report.end(self._url)
                    return
                time.sleep(_LOOK_SECONDS if self._is_preparing or self._failure else _POLL_SECONDS)

    def _describe(self, reports: Sequence[WorkerReport], *, is_last: bool = False) -> None:
        """Say what the workers found, once: as soon as all have reported, or the service is ready without some."""
        known = [report for report in reports if report.device]
        if self._is_described or not known or (len(known) < self._workers and not is_last):
            return
        self._is_described = True
        models = describe_models(self._catalogue, known[0])
        self._report.tell({"device": describe_devices(known), "models": models})

    def _find_obstacles(self, reports: Sequence[WorkerReport]) -> list[Preparation] | None:
        """What keeps each worker from using the default model; empty if one can, None if none works yet."""
        working = [report for report in reports if report.state in ("idle", "busy")]
        if not working:
            return None
        found = [preparation for report in working if (preparation := obstacle(self._model, report)) is not None]
        return found if len(found) == len(working) else []

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/readyz", timeout=_TIMEOUT_SECONDS, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _tell(self, obstacles: Sequence[Preparation]) -> None:
        """Say once that the service waits for its default model, or cannot load it; a worker's log has more."""
        message = obstacles[0].message
        if all(preparation.state == FAILED for preparation in obstacles):
            if self._is_on_hub:
                self.refusal = message
            elif message != self._failure:
                self._failure = message
                print(f"failed {self._url}: {' '.join(message.split())}; {_REMEDY}", flush=True)
        elif not self._is_preparing:
            self._is_preparing = True
            print(f"preparing {self._url}", flush=True)


def _read(connection: Redis) -> list[WorkerReport]:
    try:
        return read_workers(connection)
    except RedisError:
        return []


def _is_on_hub(catalogue: Catalogue) -> bool:
    try:
        return isinstance(catalogue.place(catalogue.model(catalogue.default_model)), HubSource)
    except CatalogueError:
        return False
