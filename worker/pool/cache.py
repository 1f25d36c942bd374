"""Which models are in memory, and who leaves for whom: the least recently used first.

A model that must leave the device goes to host memory where that has room, else it is dropped. Knows nothing of
catalogues, plans or jobs.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import Any

from contracts.metrics import Counters
from worker.pool.model import LoadedModel
from worker.runtime.device import empty_cache, free_memory

_log = logging.getLogger(__name__)


class ModelCache:
    """Models in the order of their last use. The thread that runs the jobs changes it; any thread may ask."""

    def __init__(self, size_bytes: int, max_models: int, host_bytes: int, tally: Counters) -> None:
        """Empty.

        Args:
            size_bytes: of the device.
            max_models: on the device at once, whatever their bytes.
            host_bytes: of host memory for models that had to leave the device.
        """
        self._size_bytes, self._max_models, self._host_bytes = size_bytes, max_models, host_bytes
        self._tally = tally
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        # The heartbeat's thread asks for reports while the jobs' thread loads.
        self._lock = threading.Lock()

    @property
    def models(self) -> dict[str, LoadedModel]:
        """All by their ids, on the device or parked, least recently used first."""
        with self._lock:
            return dict(self._models)

    @property
    def resident_bytes(self) -> int:
        """Weights on the device: those of all models, and their adapters."""
        return sum(model.resident_bytes for model in self.models.values())

    def find(self, id: str) -> LoadedModel | None:
        """The model, if it is in memory."""
        with self._lock:
            return self._models.get(id)

    def enter(self, id: str, model: LoadedModel) -> None:
        """The model is in memory, and the one that was used last."""
        with self._lock:
            self._models[id] = model
            self._models.move_to_end(id)

    def drop(self, id: str) -> None:
        """Forget a model and give its memory back."""
        with self._lock:
            self._models.pop(id, None)
        free_memory()

    def make_room(self, id: str, needed_bytes: int) -> None:
        """Have others than this model leave the device until so many bytes are free."""
        others = [other for other in self._models if other != id and not self._models[other].on_host]
        while others and (
            len(others) >= self._max_models
            or sum(self._models[other].resident_bytes for other in others) + needed_bytes > self._size_bytes
        ):
            self._evict(others.pop(0))

    def bound_host(self, id: str) -> None:
        """The model that runs may need the host memory in which others are parked."""
        for other in [other for other, model in self._models.items() if model.on_host and other != id]:
            if sum(model.placement.host_bytes for model in self._models.values()) <= self._host_bytes:
                return
            self._tally.count("evictions", model=other, to="dropped")
            self.drop(other)

    def report(self) -> dict[str, Any]:
        """The part of a `WorkerReport` that tells of models."""
        models = self.models
        return {
            "resident_bytes": sum(model.resident_bytes for model in models.values()),
            "host_bytes": sum(model.placement.host_bytes for model in models.values()),
            "warm": list(models),
            "parked": [id for id, model in models.items() if model.on_host],
            "adapters": {id: list(model.adapters.loaded) for id, model in models.items()},
            "placement": {id: model.locations() for id, model in models.items()},
            "models": {id: model.report() for id, model in models.items()},
        }

    def _evict(self, id: str) -> None:
        to = "host" if self._park(id) else "dropped"
        if to == "dropped":
            self.drop(id)
        self._tally.count("evictions", model=id, to=to)

    def _park(self, id: str) -> bool:
        """Whether host memory has the room, and took it."""
        model = self._models[id]
        parked = sum(other.placement.host_bytes for other in self._models.values() if other is not model)
        if parked + model.placement.bytes > self._host_bytes:
            return False
        try:
            model.move_to_host()
        except Exception:  # noqa: BLE001 - whatever it was, nothing is known of its homes any more
            _log.exception("%s could not be parked, and is dropped", id)
            return False
        empty_cache()
        return True
