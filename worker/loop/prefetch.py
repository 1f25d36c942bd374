"""Makes models and ControlNets ready that are not in memory, in a thread, while the models that are warm go on.

Ready means: the files are on this machine, have been read through once, for their content hash, and the system has
them at hand; that is what takes long. Loading itself stays with the thread that runs the jobs: while it builds a
model, diffusers and transformers change torch's defaults for the whole process. Knows no queue.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

_log = logging.getLogger(__name__)


class Prefetcher:
    """One after the other, in the order in which they were asked for, each once until it is forgotten."""

    def __init__(self, prepare: Callable[[str], object]) -> None:
        """`prepare` makes a model or a ControlNet ready, by its name; in a thread of its own."""
        self._prepare = prepare
        self._done: set[str] = set()
        self._asked: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def done(self) -> list[str]:
        """Those that are ready, or that could not be made so: their jobs will tell why."""
        with self._lock:
            return list(self._done)

    @property
    def under_way(self) -> list[str]:
        """Those that will be ready."""
        with self._lock:
            return list(self._asked)

    def forget(self, loaded: Iterable[str]) -> None:
        """These have been loaded: should they be dropped one day, they are to be made ready once more."""
        with self._lock:
            self._done.difference_update(loaded)

    def begin(self, name: str) -> None:
        """Make it ready; returns at once."""
        with self._lock:
            if name in self._done or name in self._asked:
                return
            self._asked[name] = None
            if len(self._asked) > 1:
                return
        # A daemon: a process that ends waits for no download. The hub gives a file its name when it is whole.
        threading.Thread(target=self._work, args=[name], name="preparations", daemon=True).start()

    def _work(self, name: str | None) -> None:
        while name is not None:
            try:
                self._prepare(name)
            except Exception as error:  # noqa: BLE001  # its jobs will meet the same error, and tell their clients
                _log.warning("%s could not be made ready: %s", name, type(error).__name__)
            with self._lock:
                del self._asked[name]
                self._done.add(name)
                name = next(iter(self._asked), None)
