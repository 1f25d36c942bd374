"""The models that a worker loads without being asked for them: prepared like all others, and then loaded.

Jobs go on while one of them is downloaded. The others, and ControlNets, are rehearsed at the start: what cannot be
loaded is known before a job names it. Knows no queue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

from contracts.errors import Unavailable
from contracts.jobs.failures import JobFailed
from contracts.jobs.preparations import FAILED, READING, WAITING, Preparation
from worker.checkpoints.places import NotPrepared
from worker.generation.trial import warm_up
from worker.loop.preparation.prefetch import Prefetcher
from worker.pool.pool import Pool
from worker.runtime.out_of_memory import raise_if_device_failed

_log = logging.getLogger(__name__)

#: Maximum time that a start waits for models on this machine; slower ones are loaded while jobs go on.
_START_SECONDS = 60.0
_POLL_SECONDS = 0.02
#: Time after which a model that could not be loaded is tried again; its files may have been repaired.
_RETRY_SECONDS = 60.0


class WarmList:
    """The models of the list that are not loaded yet. For the thread that runs the jobs, but for `failures`."""

    def __init__(self, pool: Pool, prefetcher: Prefetcher, *, is_compiled: bool) -> None:
        """`is_compiled`: whether each is called once after it was loaded, since the first call compiles it."""
        self._pool = pool
        self._prefetcher = prefetcher
        self._is_compiled = is_compiled
        self._wanted: frozenset[str] = frozenset()
        self._left: list[str] = []
        #: What a rehearsal has found to be unusable.
        self._unusable: frozenset[str] = frozenset()
        #: Model -> why it could not be loaded, and when; replaced as a whole, since other threads read it.
        self._failures: dict[str, tuple[str, float]] = {}
        #: Names of the rows that were rehearsed or need no rehearsal, and the catalogue's models then.
        self._seen: frozenset[str] = frozenset(pool.catalogue.rows_by_need)
        self._models = pool.catalogue.models

    @property
    def failures(self) -> list[Preparation]:
        """What could not be loaded, and was not loaded since, for the worker's report. In any thread.

        A model of the list is tried again; another is forgotten after as long, and tried for the next job.
        """
        warm, now, remembered = self._pool.warm, time.monotonic(), self._wanted | self._unusable
        return [
            Preparation(name=model, state=FAILED, message=message)
            for model, (message, failed_at) in self._failures.items()
            if model not in warm and (model in remembered or now - failed_at < _RETRY_SECONDS)
        ]

    def note_failure(self, model: str, message: str) -> None:
        """A model could not be loaded, for a job or for this list."""
        self._failures = {**self._failures, model: (message, time.monotonic())}

    def note_job_failure(self, model: str, message: str) -> None:
        """A job of this model failed since something could not be loaded: the model, or one of its ControlNets."""
        if message.startswith(f"{model} cannot be loaded"):
            self.note_failure(model, message)

    def start(self, models: Sequence[str]) -> None:
        """Load those that are on this machine, and have the others downloaded: they are loaded later."""
        self._wanted, self._left = frozenset(models), list(models)
        deadline = time.monotonic() + _START_SECONDS
        self.load_prepared()
        while self._is_reading() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            self.load_prepared()
        self.load_prepared()  # the last one may have been read just before it was asked whether one still is
        self._rehearse(name for name in self._pool.fetcher.names_here() if name not in self._wanted)

    def load_prepared(self) -> None:
        """Load those that have been prepared by now; try those again whose last attempt is long ago."""
        self._retry()
        for model in list(self._left):
            if model in self._prefetcher.ready:
                self._left.remove(model)
                self._load(model)
            elif model in self._pool.warm:  # for a job
                self._left.remove(model)
            else:
                self._prefetcher.begin(model, always_wanted=True)

    def _rehearse(self, names: Iterable[str]) -> None:
        """Remember which of these cannot be loaded. LoRAs are read when a job names them."""
        for name in names:
            if name in self._pool.warm or name.startswith(("lora:", "textual_inversion:")):
                continue
            try:
                self._pool.rehearse(name)
                self._unusable -= {name}
            except JobFailed as failure:
                if name not in self._unusable:
                    _log.error("%s", failure.message)
                self._unusable |= {name}
                self.note_failure(name, failure.message)
            except (NotPrepared, Unavailable):
                self._unusable -= {name}

    def _retry(self) -> None:
        now = time.monotonic()
        if self._models is not self._pool.catalogue.models:  # rows were added while this worker runs
            rows = frozenset(self._pool.catalogue.rows_by_need)
            self._rehearse(rows - self._seen)
            self._seen, self._models = rows, self._pool.catalogue.models
        due = [name for name in self._unusable if now - self._failures[name][1] > _RETRY_SECONDS]
        self._rehearse(due)
        for model, (message, failed_at) in self._failures.items():
            is_due = model in self._wanted and now - failed_at > _RETRY_SECONDS
            if is_due and model not in self._left and model not in self._pool.warm:
                self.note_failure(model, message)
                self._prefetcher.forget([model])
                self._left.append(model)

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
                warm_up(self._pool, model)
            _log.info("%s: loaded", model, extra={"seconds": round(time.monotonic() - started_at, 3)})
        except JobFailed as failure:
            raise_if_device_failed(failure, self._pool.device)
            # Jobs of a model that cannot be loaded fail with this message; the other models are served.
            if self._failures.get(model, ("", 0.0))[0] != failure.message:
                _log.error("%s", failure.message, exc_info=failure.__cause__)
            self.note_failure(model, failure.message)
        except NotPrepared as error:
            _log.warning("%s; they are prepared again", error)
            self._prefetcher.forget([model])
            self._left.append(model)
