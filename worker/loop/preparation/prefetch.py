"""Prepares models, ControlNets and LoRAs that are not in memory, in the background, while jobs of warm models run.

Prepared means: the files are on this machine, were read once for their content hash, and are in the page cache;
that takes most of the time. Loading stays with the thread that runs the jobs, in slices between their calls: while
diffusers and transformers build a model, they change torch's defaults for the whole process. Knows no queue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from contracts.hub.errors import Cancelled
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.preparations import FAILED, RETRYING, Preparation
from contracts.metrics import Counters
from contracts.processes.background import BackgroundThread
from worker.checkpoints.places import PreparationWatch
from worker.loop.preparation.running import RunningPreparation
from worker.pool.loading.fetcher import PreparationDelayed

_log = logging.getLogger(__name__)

Prepare = Callable[[str, PreparationWatch], object]

#: Pauses after failed attempts grow from the first to the longest; what a hub asks for is bounded too.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _LONGEST_ASKED_SECONDS = 2.0, 60.0, 300.0
#: How long a failure is remembered: jobs that come meanwhile fail with it at once, a later one tries again.
_FAILURE_SECONDS = 60.0
#: What the names of the threads of downloads begin with.
_DOWNLOAD = "download "


@dataclass(frozen=True)
class _End:
    """The end of one attempt to prepare something.

    Attributes:
        outcome: as the metric `preparations` counts it.
        message, retry_seconds: why an attempt is tried again, and when the hub asked for that.
        failure: with what the jobs that need it fail.
    """

    outcome: str
    message: str = ""
    retry_seconds: float = 0.0
    failure: JobFailed | None = None


class _Delay:
    """Something whose preparation has failed for now: `attempts` in a row without a byte more, from `since` on."""

    def __init__(self, message: str, attempts: int, since: float, pause_seconds: float) -> None:
        self.message, self.attempts, self.since = message, attempts, since
        self.ends_at = time.monotonic() + pause_seconds

    @property
    def left_seconds(self) -> float:
        """Time until the next attempt; negative once it is due."""
        return self.ends_at - time.monotonic()


class _Failure:
    """Something that cannot be prepared."""

    def __init__(self, error: JobFailed) -> None:
        self.error = error
        self.forgotten_at = time.monotonic() + _FAILURE_SECONDS


class Prefetcher:
    """Background threads that prepare things by name, each once until it is forgotten.

    Models come one after another, and so do ControlNets and LoRAs, but no LoRA waits for a model, and nothing that
    is on this machine waits for a download.
    A process that ends does not wait for a download; the next one goes on from there.
    """

    def __init__(
        self,
        prepare: Prepare,
        on_end: Callable[[], object] = lambda: None,
        is_here: Callable[[str], bool] = lambda _: True,
        counters: Counters | None = None,
        first_pause_seconds: float = _FIRST_PAUSE_SECONDS,
    ) -> None:
        """Build it; threads start with the first preparation.

        Args:
            prepare: prepares something by name. PreparationDelayed: it is tried again after a pause; JobFailed and
                every other error: it cannot be prepared.
            on_end: called in the thread after each preparation.
            is_here: whether something needs no download.
            counters: counts downloaded bytes, and preparations by how they end.
            first_pause_seconds: pause after the first failure; it doubles with each further one.
        """
        self._prepare = prepare
        self._on_end = on_end
        self._is_here = is_here
        self._counters = Counters() if counters is None else counters
        self._first_pause_seconds = first_pause_seconds
        self._ready: set[str] = set()
        self._pending: dict[str, RunningPreparation] = {}
        self._delays: dict[str, _Delay] = {}
        self._failures: dict[str, _Failure] = {}
        self._lock = threading.Lock()
        self._threads: dict[str, BackgroundThread] = {}

    @property
    def ready(self) -> list[str]:
        """Names that are prepared."""
        with self._lock:
            return list(self._ready)

    @property
    def pending(self) -> list[str]:
        """Names that are being prepared, or will be, in the order of the requests."""
        with self._lock:
            return list(self._pending)

    @property
    def deferred(self) -> list[str]:
        """Names that cannot be used now: pending ones, those that failed lately or wait for another attempt."""
        with self._lock:
            self._forget_old_failures()
            delayed = [name for name, delay in self._delays.items() if delay.left_seconds > 0]
            return [*self._pending, *delayed, *self._failures]

    @property
    def failures(self) -> dict[str, JobFailed]:
        """Name -> why it could not be prepared, for those that failed lately."""
        with self._lock:
            self._forget_old_failures()
            return {name: failure.error for name, failure in self._failures.items()}

    @property
    def preparations(self) -> list[Preparation]:
        """How all preparations go on that have not ended well."""
        with self._lock:
            self._forget_old_failures()
            going = [running.view() for running in self._pending.values()]
            delayed = [
                Preparation(
                    name=name,
                    state=RETRYING,
                    message=delay.message,
                    retry_seconds=round(max(0.0, delay.left_seconds), 1),
                )
                for name, delay in self._delays.items()
                if name not in self._pending
            ]
            failed = [
                Preparation(name=name, state=FAILED, message=failure.error.message)
                for name, failure in self._failures.items()
            ]
            return [*going, *delayed, *failed]

    def forget(self, names: Iterable[str]) -> None:
        """These have been loaded or were lost, and must be prepared again when they are needed next."""
        with self._lock:
            self._ready.difference_update(names)

    def begin(self, name: str, *, always_wanted: bool = False) -> None:
        """Prepare something in the background, unless that must wait; returns at once.

        Args:
            always_wanted: whether it is prepared even if no job needs it.
        """
        with self._lock:
            if self._is_begun(name, always_wanted):
                return
        lane = self._lane_of(name)
        with self._lock:
            if self._is_begun(name, always_wanted):
                return
            self._pending[name] = RunningPreparation(
                name,
                is_download=lane.startswith(_DOWNLOAD),
                always_wanted=always_wanted,
                count_bytes=lambda amount: self._counters.count("downloaded_bytes", amount, name=name),
            )
            thread = self._threads.setdefault(lane, BackgroundThread(f"prefetch {lane}"))
            thread.submit(partial(self._prepare_one, name, self._pending[name]))

    def set_needed(self, name: str, is_needed: bool) -> None:
        """Say whether any job needs this: a preparation that none needs ends, and a later one goes on from there.

        What failed for now is forgotten, once its pause is over, if no job needs it.
        """
        with self._lock:
            delay = self._delays.get(name)
            if name in self._pending:
                self._pending[name].is_needed = is_needed
            elif delay is not None and not is_needed and delay.left_seconds <= 0:
                del self._delays[name]

    def delayed_seconds(self, name: str) -> float:
        """How long all attempts to prepare this have failed without a byte more; 0 where the last did not."""
        with self._lock:
            delay = self._delays.get(name)
            return 0.0 if delay is None else time.monotonic() - delay.since

    def _is_begun(self, name: str, always_wanted: bool) -> bool:
        """Whether nothing is to be done for this now; if it is pending, it is wanted once more."""
        self._forget_old_failures()
        if name in self._pending:
            self._pending[name].want(always=always_wanted)
            return True
        delay = self._delays.get(name)
        return name in self._ready or name in self._failures or (delay is not None and delay.left_seconds > 0)

    def _lane_of(self, name: str) -> str:
        """Which thread prepares it: what takes long must not delay what does not."""
        kind = name.rpartition(":")[0] or "model"
        return kind if self._is_here(name) else _DOWNLOAD + kind

    def _prepare_one(self, name: str, running: RunningPreparation) -> None:
        end = self._attempt(name, running)
        with self._lock:
            del self._pending[name]
            self._ready.discard(name)
            delay = self._delays.pop(name, None)
            if end.failure is not None:
                self._failures[name] = _Failure(end.failure)
            elif end.outcome == "delayed":
                is_first = delay is None or running.has_advanced
                attempts = 0 if delay is None or is_first else delay.attempts
                since = time.monotonic() if delay is None or is_first else delay.since
                pause_seconds = self._pause_seconds(end.retry_seconds, attempts)
                self._delays[name] = _Delay(end.message, attempts + 1, since, pause_seconds)
            elif end.outcome == "ready":
                self._ready.add(name)
            elif delay is not None:
                self._delays[name] = delay
        self._counters.count("preparations", name=name, outcome=end.outcome)
        self._on_end()

    def _attempt(self, name: str, running: RunningPreparation) -> _End:
        try:
            if not running.is_wanted():
                raise Cancelled(f"{name} is no longer needed")
            running.begin()
            self._prepare(name, running)
        except Cancelled:
            _log.info("preparation of %s stopped: no job needs it", name)
            return _End("cancelled")
        except PreparationDelayed as error:
            _log.warning("%s could not be prepared and will be tried again: %s", name, error)
            return _End("delayed", str(error), error.retry_seconds or 0.0)
        except JobFailed as error:
            _log.error("%s cannot be prepared: %s", name, error.message)
            return _End("failed", failure=error)
        except Exception as error:  # noqa: BLE001  # its jobs fail with what can be said of it
            _log.exception("%s cannot be prepared", name)
            message = (
                f"{name} cannot be loaded: its files are unusable ({type(error).__name__}); see the worker's log"
            )
            return _End("failed", failure=JobFailed(FailureCode.MODEL_LOAD_FAILED, message))
        return _End("ready")

    def _pause_seconds(self, asked_seconds: float, attempts: int) -> float:
        pause_seconds = min(_LONGEST_PAUSE_SECONDS, self._first_pause_seconds * 2.0 ** min(attempts, 16))
        return max(pause_seconds, min(asked_seconds, _LONGEST_ASKED_SECONDS))

    def _forget_old_failures(self) -> None:
        now = time.monotonic()
        self._failures = {name: one for name, one in self._failures.items() if one.forgotten_at > now}
