"""The models that a worker loads without being asked for them: prepared like all others, and then loaded.

Jobs go on while one of them is downloaded. Knows no queue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from contracts.errors import JobFailed
from contracts.processes.preparations import FAILED, READING, WAITING, Preparation
from contracts.storage import Storage
from worker.checkpoints.places import NotPrepared
from worker.generation.warm_up import warm_up
from worker.loop.prefetch import Prefetcher
from worker.pool.pool import Pool

_log = logging.getLogger(__name__)

#: Maximum time that a start waits for models on this machine; slower ones are loaded while jobs go on.
_START_SECONDS = 60.0
_POLL_SECONDS = 0.02


class WarmList:
    """The models of the list that are not loaded yet. For the thread that runs the jobs, but for `failures`."""

    def __init__(self, pool: Pool, prefetcher: Prefetcher, storage: Storage, *, is_compiled: bool) -> None:
        """`is_compiled`: whether each is called once after it was loaded, since the first call compiles it."""
        self._pool = pool
        self._prefetcher = prefetcher
        self._storage = storage
        self._is_compiled = is_compiled
        self._left: list[str] = []
        self._failures: tuple[Preparation, ...] = ()

    @property
    def failures(self) -> list[Preparation]:
        """Those that could not be loaded, and were not loaded since, for the worker's report. In any thread."""
        warm = self._pool.warm
        return [failure for failure in self._failures if failure.name not in warm]

    def start(self, models: Sequence[str]) -> None:
        """Load those that are on this machine, and have the others downloaded: they are loaded later."""
        self._left = list(models)
        deadline = time.monotonic() + _START_SECONDS
        self.load_prepared()
        while self._is_reading() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            self.load_prepared()

    def load_prepared(self) -> None:
        """Load those that have been prepared by now."""
        for model in list(self._left):
            if model in self._prefetcher.ready:
                self._left.remove(model)
                self._load(model)
            elif model in self._pool.warm:  # for a job
                self._left.remove(model)
            else:
                self._prefetcher.begin(model, always_wanted=True)

    def _is_reading(self) -> bool:
        """Whether one of them will soon be prepared: its files are on this machine, and are being read."""
        return any(
            preparation.name in self._left and preparation.state in (WAITING, READING)
            for preparation in self._prefetcher.preparations
        )

    def _load(self, model: str) -> None:
        _log.info("%s: loading", model)
        started_at = time.monotonic()
        try:
            self._pool.model(model)
            if self._is_compiled:
                _log.info("%s: compiling, which may take minutes", model)
                warm_up(self._pool, self._storage, model)
            _log.info("%s: loaded", model, extra={"seconds": round(time.monotonic() - started_at, 3)})
        except JobFailed as failure:
            # Jobs of a model that cannot be loaded fail with this message; the other models are served.
            _log.error("%s", failure.message, exc_info=failure.__cause__)
            self._failures += (Preparation(name=model, state=FAILED, message=failure.message),)
        except NotPrepared as error:
            _log.warning("%s any more", error)
            self._prefetcher.forget([model])
            self._left.append(model)
