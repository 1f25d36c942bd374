"""Tells people how the start of a service goes on: what it prepares, and when it is ready.

Reads the API's readiness and the workers' reports. Changes nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import httpx
from redis import RedisError

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import CatalogueError
from contracts.hub.source import HubSource
from contracts.queue.preparations import FAILED, Preparation
from contracts.queue.workers import obstacle, read_workers
from contracts.redis.connection import connect

_POLL_SECONDS = 0.1
#: Interval between two looks at the workers' reports, and between two questions once a model is being fetched.
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
        looked_at = float("-inf")
        while not is_closing() and self.refusal is None:
            if self._is_ready():
                print(f"ready {self._url}", flush=True)
                return
            if time.monotonic() - looked_at >= _LOOK_SECONDS:
                self._look()
                looked_at = time.monotonic()
            time.sleep(_POLL_SECONDS if self._told is None else _LOOK_SECONDS)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/readyz", timeout=_TIMEOUT_SECONDS, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _look(self) -> None:
        try:
            obstacles = [obstacle(self._model, report) for report in read_workers(self._connection)]
        except RedisError:
            return
        told = [one for one in obstacles if one is not None]
        if not told or None in obstacles:
            return
        preparation = next((one for one in told if one.state != FAILED), told[0])
        if preparation.state == FAILED and self._is_on_hub:
            self.refusal = preparation.message
            return
        before = self._told
        is_news = before is None or (before.state, before.message) != (preparation.state, preparation.message)
        if before is None:
            print(f"preparing {self._url}", flush=True)
        if is_news or time.monotonic() - self._told_at > _LINE_SECONDS:
            print(preparation.describe(), file=sys.stderr, flush=True)
            self._told, self._told_at = preparation, time.monotonic()


def _is_on_hub(catalogue: Catalogue) -> bool:
    try:
        return isinstance(catalogue.place(catalogue.model(catalogue.default_model)), HubSource)
    except CatalogueError:
        return False
