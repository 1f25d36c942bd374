"""Makes models ready that no job here has asked for before, in a thread, while the models that are warm go on.

Ready means: its files are on this machine and have been read through once, for their content hash, so that the
system has them at hand; that is what takes long. Loading itself stays with the thread that runs the jobs: while it
builds a model, diffusers and transformers change torch's defaults for the whole process. Knows no queue.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Preparations:
    """Models are made ready one after the other, in the order in which they were asked for, each once."""

    def __init__(self, prepare: Callable[[str], object]) -> None:
        """`prepare` makes a model ready; in a thread of its own."""
        self._prepare = prepare
        self._done: set[str] = set()
        self._asked: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def done(self) -> list[str]:
        """Models that are ready, or that could not be made so: their jobs will tell why."""
        with self._lock:
            return list(self._done)

    @property
    def under_way(self) -> list[str]:
        """Models that will be ready."""
        with self._lock:
            return list(self._asked)

    def begin(self, model: str) -> None:
        """Make a model ready; returns at once."""
        with self._lock:
            if model in self._done or model in self._asked:
                return
            self._asked[model] = None
            if len(self._asked) > 1:
                return
        # A daemon: a process that ends waits for no download. The hub gives a file its name when it is whole.
        threading.Thread(target=self._work, args=[model], name="preparations", daemon=True).start()

    def _work(self, model: str | None) -> None:
        while model is not None:
            try:
                self._prepare(model)
            except Exception as error:  # noqa: BLE001  # its jobs will meet the same error, and tell their clients
                _log.warning("%s could not be made ready: %s", model, type(error).__name__)
            with self._lock:
                del self._asked[model]
                self._done.add(model)
                model = next(iter(self._asked), None)
