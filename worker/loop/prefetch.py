"""Prepares models and ControlNets that are not in memory, in the background, while jobs of warm models run.

Prepared means: the files are on this machine, were read once for their content hash, and are in the page cache;
that takes most of the time. Loading stays with the thread that runs the jobs: while diffusers and transformers
build a model, they change torch's defaults for the whole process. Knows no queue.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial

from contracts.background import BackgroundThread

_log = logging.getLogger(__name__)


class Prefetcher:
    """A background thread that prepares models one after another, each once until it is forgotten.

    A process that ends does not wait for a download: the hub names a file only when it is complete.
    """

    def __init__(self, prepare: Callable[[str], object], on_ready: Callable[[], object] = lambda: None) -> None:
        """`prepare` prepares a model or ControlNet by name; `on_ready` is called in the thread after each."""
        self._prepare = prepare
        self._on_ready = on_ready
        self._ready: set[str] = set()
        self._pending: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._thread = BackgroundThread("prefetch")

    @property
    def ready(self) -> list[str]:
        """Names that are prepared, or could not be: their jobs report why."""
        with self._lock:
            return list(self._ready)

    @property
    def pending(self) -> list[str]:
        """Names that will be prepared, in order; the first is being prepared."""
        with self._lock:
            return list(self._pending)

    def forget(self, loaded: Iterable[str]) -> None:
        """These have been loaded: when they are dropped one day, they must be prepared again."""
        with self._lock:
            self._ready.difference_update(loaded)

    def begin(self, name: str) -> None:
        """Prepare a model or ControlNet in the background; returns at once."""
        with self._lock:
            if name in self._ready or name in self._pending:
                return
            self._pending[name] = None
            self._thread.submit(partial(self._prepare_one, name))

    def _prepare_one(self, name: str) -> None:
        try:
            self._prepare(name)
        except Exception as error:  # noqa: BLE001  # its jobs meet the same error when they load it, and report it
            _log.warning("%s could not be prepared: %s", name, type(error).__name__)
        with self._lock:
            del self._pending[name]
            self._ready.add(name)
        self._on_ready()
