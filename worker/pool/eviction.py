"""Which models are in memory, and which is evicted for another: the least recently used first.

A model that must leave the device goes to host memory where that has room, else it is dropped. Knows nothing of
catalogues, plans or jobs.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from contracts.memory.moves import Neighbour, Situation
from contracts.memory.plan import Plan
from contracts.metrics import Counters
from worker.pool.model import LoadedModel
from worker.runtime.device import empty_cache, free_memory

_log = logging.getLogger(__name__)


class ModelCache:
    """Loaded models, least recently used first. Changed by the jobs' thread alone; any thread may read it.

    Attributes:
        in_use: how many jobs in flight hold each model, which is then not dropped.
        loading: the model that is being loaded while others are served, if any, and what its plan takes.
    """

    def __init__(self, size_bytes: int, max_models: int, host_bytes: int, counters: Counters) -> None:
        """Empty.

        Args:
            size_bytes: of the device.
            max_models: on the device at once, whatever their bytes.
            host_bytes: of host memory for models that had to leave the device.
        """
        self._size_bytes, self._max_models, self._host_bytes = size_bytes, max_models, host_bytes
        self._counters = counters
        self.in_use: Counter[str] = Counter()
        self.loading: dict[str, int] = {}
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        # The heartbeat's thread asks for reports while the jobs' thread loads.
        self._lock = threading.Lock()

    @property
    def models(self) -> dict[str, LoadedModel]:
        """Id -> model, on the device or in host memory, least recently used first."""
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
        """Add a model, or mark it as the last one used."""
        with self._lock:
            self._models[id] = model
            self._models.move_to_end(id)

    def drop(self, id: str) -> None:
        """Remove a model and free its memory."""
        with self._lock:
            self._models.pop(id, None)
        free_memory()

    def situation(self, id: str, calls: float, is_wanted: Callable[[str], bool]) -> Situation:
        """The device as a call of this model finds it.

        Args:
            calls: that are expected in a row, this one included.
            is_wanted: whether another model is likely to be called again.
        """
        model = self._models.get(id)
        resident = () if model is None else model.placement.resident_names
        return Situation(self._size_bytes, resident, self._neighbours(id, is_wanted), calls)

    def _neighbours(self, id: str, is_wanted: Callable[[str], bool]) -> list[Neighbour]:
        """The other models on the device, in the order in which they would leave for this one."""
        others = {other: model for other, model in self._models.items() if other != id and not model.on_host}
        # Those beyond the number of models leave whatever the plan.
        surplus = max(0, len(others) + 1 - self._max_models)
        return [
            Neighbour(
                model.resident_bytes,
                model.placement.spare_bytes,
                components=len(model.placement.names),
                is_kept=model.placement.bytes <= self._host_bytes,
                is_wanted=is_wanted(other),
            )
            for other, model in list(others.items())[surplus:]
        ]

    def make_room(self, id: str, needed_bytes: int, *, keep_in_use: bool = False) -> None:
        """Evict other models from the device until so many bytes are free.

        Components that their last jobs did not need go first.

        Args:
            keep_in_use: evict none that a job in flight holds.
        """
        others = self._leaving_order(id)

        def is_full() -> bool:
            taken = sum(self._models[other].resident_bytes for other in others)
            return taken + needed_bytes > self._size_bytes

        for other in others:
            if is_full() and not (keep_in_use and other in self.in_use):
                self._models[other].placement.release_spare()
        while others and (len(others) >= self._max_models or is_full()):
            if keep_in_use and others[0] in self.in_use:
                return
            self._evict(others.pop(0))

    @contextmanager
    def being_loaded(self, id: str, needed_bytes: int) -> Iterator[None]:
        """Inside, a model is loaded while others are served: it is in use, and the room that it needs is taken."""
        self.loading = {id: needed_bytes}
        self.in_use[id] += 1
        try:
            yield
        finally:
            self.in_use -= Counter([id])
            self.loading = {}

    def taken_beside(self, id: str) -> int:
        """Bytes of the device that other models have, or will have once they are loaded."""
        resident = {other: model.resident_bytes for other, model in self.models.items()} | {id: 0}
        coming = {other: size for other, size in self.loading.items() if other != id}
        return sum(max(resident.get(other, 0), coming.get(other, 0)) for other in {*resident, *coming})

    def can_serve_all_beside(self, id: str, needed_bytes: int) -> bool:
        """Whether all models in use are on the device, and can be called there while another one comes."""
        in_use = [self._models.get(other) for other in self.in_use if other != id]
        others = [model for model in in_use if model is not None and not model.on_host]
        if len(others) < len(in_use):
            return False
        calls = max((self._needed_by(model) - model.resident_bytes for model in others), default=0)
        return self.taken_beside(id) + calls + needed_bytes <= self._size_bytes

    @property
    def plans_in_use(self) -> list[Plan]:
        """The plans by which the models of jobs in flight are placed."""
        plans = (self._models[id].placement.plan for id in self._models if id in self.in_use)
        return [plan for plan in plans if plan is not None]

    @property
    def bytes_in_use(self) -> int:
        """What the models of jobs in flight take while they are served, activations included."""
        needed = {id: self._needed_by(self._models[id]) for id in self._models if id in self.in_use}
        return sum(max(needed.get(id, 0), self.loading.get(id, 0)) for id in {*needed, *self.loading})

    def evict_idle(self, needed_bytes: int) -> None:
        """Evict models that no job uses until so many bytes are free beside those of jobs in flight."""
        idle = [id for id in self._leaving_order("") if id not in self.in_use]
        needed_bytes += self.bytes_in_use
        while idle and needed_bytes + sum(self._models[id].resident_bytes for id in idle) > self._size_bytes:
            self._evict(idle.pop(0))

    @staticmethod
    def _needed_by(model: LoadedModel) -> int:
        plan = model.placement.plan
        return max(model.resident_bytes, 0 if plan is None else plan.peak_bytes)

    def can_make_room(self, id: str, needed_bytes: int) -> bool:
        """Whether `make_room` would drop no model that is in use."""
        on_device = [other for other in self._leaving_order(id) if other in self.in_use]
        coming = {other: size for other, size in self.loading.items() if other != id}
        staying = {other: self._models[other].resident_bytes for other in on_device} | coming
        taken = sum(staying.values())
        if len(staying) < self._max_models and taken + needed_bytes <= self._size_bytes:
            return True
        host_bytes = sum(model.placement.bytes for other, model in self._models.items() if other in self.in_use)
        return host_bytes <= self._host_bytes

    def _leaving_order(self, id: str) -> list[str]:
        """The other models on the device; those that no job in flight uses leave first."""
        others = [other for other in self._models if other != id and not self._models[other].on_host]
        return sorted(others, key=lambda other: other in self.in_use)

    def bound_host(self, id: str) -> None:
        """Keep to the host memory: give copies of other models' resident weights back, then drop models there."""
        others = [other for other in self._models if other != id]
        for other in [other for other in others if not self._models[other].on_host]:
            if self._host_taken() > self._host_bytes:
                self._models[other].placement.release_host_copies()
        for other in [other for other in others if self._models[other].on_host and other not in self.in_use]:
            if self._host_taken() <= self._host_bytes:
                return
            self._counters.count("evictions", model=other, to="dropped")
            self.drop(other)

    def report(self) -> dict[str, Any]:
        """The fields of a `WorkerReport` about models."""
        models = self.models
        return {
            "resident_bytes": sum(model.resident_bytes for model in models.values()),
            "host_bytes": sum(model.placement.host_bytes for model in models.values()),
            "warm": list(models),
            "in_host_memory": [id for id, model in models.items() if model.on_host],
            "adapters": {id: list(model.adapters.loaded) for id, model in models.items()},
            "placement": {id: model.locations() for id, model in models.items()},
            "models": {id: model.report() for id, model in models.items()},
        }

    def _evict(self, id: str) -> None:
        to = "host" if self._move_to_host(id) else "dropped"
        if to == "dropped":
            self.drop(id)
        self._counters.count("evictions", model=id, to=to)

    def _host_taken(self, beside: LoadedModel | None = None) -> int:
        """Host memory of all models, or of all but one."""
        return sum(model.placement.host_bytes for model in self._models.values() if model is not beside)

    def _move_to_host(self, id: str) -> bool:
        """Move a model to host memory; False where that has no room for it."""
        model = self._models[id]
        for other in self._models.values():
            if self._host_taken(beside=model) + model.placement.bytes > self._host_bytes and not other.on_host:
                other.placement.release_host_copies()
        if self._host_taken(beside=model) + model.placement.bytes > self._host_bytes:
            return False
        try:
            model.move_to_host()
        except Exception:  # noqa: BLE001 - where its weights are is unknown now
            _log.exception("%s could not be moved to host memory and was dropped", id)
            return False
        empty_cache()
        return True
