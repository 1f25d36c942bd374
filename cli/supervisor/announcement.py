"""Tells people how the start of a service goes on: what it prepares, and when it is ready.

Reads the workers' reports, and the API's readiness once one of them can work. Changes nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import httpx
from redis import RedisError

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import CatalogueError
from contracts.hub.source import HubSource
from contracts.processes.preparations import FAILED, FETCHING, Preparation
from contracts.processes.workers import obstacle, read_workers
from contracts.redis.connection import connect

#: Interval between two looks at the workers' reports, and the same once a model is being fetched.
_POLL_SECONDS = 0.1
_LOOK_SECONDS = 1.0
#: Interval between two lines about one download.
_LINE_SECONDS = 5.0
_TIMEOUT_SECONDS = 5.0


class Announcement:
    """Prints `preparing URL` while the default model is prepared, and `ready URL` once a job would be run.

    Attributes:
        refusal: why the default model cannot be had from its hub; None as long as it can.
    """

    def __init__(self, url: str, redis_url: str, catalogue: Catalogue) -> None:
        """`url` is the API's."""
        self.refusal: str | None = None
        self._url = url
        self._model = catalogue.default_model
        self._is_on_hub = _is_on_hub(catalogue)
        self._connection = connect(redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=0)
        self._told: Preparation | None = None
        self._told_at = float("-inf")

    def run(self, is_closing: Callable[[], bool]) -> None:
        """Print until the service is ready, cannot become ready, or is closed."""
        while not is_closing() and self.refusal is None:
            obstacles = self._find_obstacles()
            if obstacles:
                self._tell(obstacles)
            elif obstacles is not None and self._is_ready():
                print(f"ready {self._url}", flush=True)
                return
            time.sleep(_POLL_SECONDS if self._told is None else _LOOK_SECONDS)

    def _find_obstacles(self) -> list[Preparation] | None:
        """What keeps each worker from using the default model; empty if one can, None if none works yet."""
        try:
            reports = [report for report in read_workers(self._connection) if report.state in ("idle", "busy")]
        except RedisError:
            return None
        obstacles = [obstacle(self._model, report) for report in reports]
        if not obstacles:
            return None
        found = [one for one in obstacles if one is not None]
        return found if len(found) == len(obstacles) else []

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/readyz", timeout=_TIMEOUT_SECONDS, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _tell(self, obstacles: Sequence[Preparation]) -> None:
        """Print what has changed, and how a download goes on."""
        preparation = next((one for one in obstacles if one.state != FAILED), obstacles[0])
        if preparation.state == FAILED and self._is_on_hub:
            self.refusal = preparation.message
            return
        before = self._told
        is_news = before is None or (before.state, before.message) != (preparation.state, preparation.message)
        if before is None:
            print(f"preparing {self._url}", flush=True)
        is_due = preparation.state == FETCHING and time.monotonic() - self._told_at > _LINE_SECONDS
        if is_news or is_due:
            print(preparation.describe(), file=sys.stderr, flush=True)
            self._told, self._told_at = preparation, time.monotonic()


def _is_on_hub(catalogue: Catalogue) -> bool:
    try:
        return isinstance(catalogue.place(catalogue.model(catalogue.default_model)), HubSource)
    except CatalogueError:
        return False
