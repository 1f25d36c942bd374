"""Has models loaded and placed by their plans, at once or while others are served.

Knows neither jobs nor catalogues.
"""

from __future__ import annotations

from collections.abc import Sequence

from contracts.memory.plan import Plan
from contracts.metrics import Counters
from contracts.requests.entry_parameters import ControlParameters
from worker.pool.eviction import ModelCache
from worker.pool.loading.loader import Meanwhile, ModelLoader
from worker.pool.model import LoadedModel
from worker.runtime import slices
from worker.runtime.cuda_graphs import GraphPool


class ModelPlacer:
    """Placer of a cache's models on one device; others are evicted as far as room is needed."""

    def __init__(
        self,
        cache: ModelCache,
        loader: ModelLoader,
        size_bytes: int,
        counters: Counters,
        graph_pool: GraphPool,
    ) -> None:
        """`size_bytes`: of the device."""
        self._cache, self._loader, self._size_bytes, self._counters = cache, loader, size_bytes, counters
        self._graph_pool = graph_pool

    def place(
        self,
        id: str,
        plan: Plan,
        kept_bytes: int,
        controls: Sequence[ControlParameters] = (),
        vaes: Sequence[str] = (),
        meanwhile: Meanwhile | None = None,
    ) -> LoadedModel:
        """Return the model with these ControlNets and VAEs, where the plan has it.

        Args:
            kept_bytes: of the device, which jobs in flight keep beside weights.
            meanwhile: has others served between slices of what is loaded and moved; None: it is done at once.

        Raises:
            JobFailed, NotPrepared: as `ModelLoader.load`.
            torch.OutOfMemoryError: the device has no room for the weights.
            BaseException: what `meanwhile` raises.
        """
        model = self._cache.find(id)
        if model is not None and not model.serves(plan):
            model = None  # before it is dropped, or it would outlive that
            self._cache.drop(id)
        if model is not None and not model.on_host:
            self._counters.count("warm_hits", model=id)
        if self._graph_pool.beside(plan.graph_bytes) + plan.peak_bytes + kept_bytes > self._size_bytes:
            self._graph_pool.release()
        needed_bytes = plan.peak_bytes + kept_bytes + self._graph_pool.beside(plan.graph_bytes)
        if meanwhile is None:
            self._cache.make_room(id, needed_bytes)
            model = self._loader.load_missing(model, id, plan, controls, vaes)
            self._apply_plan(model, plan)
        else:
            with self._cache.being_loaded(id, plan.peak_bytes):
                self._cache.make_room(id, needed_bytes, keep_in_use=True)
                model = self._loader.load_missing(model, id, plan, controls, vaes, meanwhile)
                self._move_meanwhile(model, plan, needed_bytes, meanwhile)
        self._cache.bound_host(id)
        return model

    def _move_meanwhile(self, model: LoadedModel, plan: Plan, needed_bytes: int, meanwhile: Meanwhile) -> None:
        """Move what was loaded: in slices where nobody uses it yet and the others can be served beside it."""
        meanwhile.settle()
        id = model.spec.id
        self._cache.make_room(id, needed_bytes)
        is_new = self._cache.in_use[id] == 1  # by the job that it is loaded for
        others_run = is_new and self._cache.can_serve_all_beside(id, needed_bytes)
        with slices.cut(meanwhile.pause if others_run else None):
            self._apply_plan(model, plan)

    def _apply_plan(self, model: LoadedModel, plan: Plan) -> None:
        if model.bytes_beside(plan) + plan.peak_bytes > self._size_bytes:
            model.forget_adapters()
        try:
            model.placement.apply(plan, self._spare_bytes(model, plan))
        except BaseException:
            # Some components may have moved.
            self._cache.drop(model.spec.id)
            raise

    def _spare_bytes(self, model: LoadedModel, plan: Plan) -> int:
        """Device memory that is left beside a model's plan, its adapters and the other models."""
        beside = model.bytes_beside(plan) + self._cache.taken_beside(model.spec.id)
        beside += self._graph_pool.beside(plan.graph_bytes)
        return self._size_bytes - plan.peak_bytes - beside
