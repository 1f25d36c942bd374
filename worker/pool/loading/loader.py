"""Loads models and ControlNets that are on this machine, and counts loads and failures.

Knows neither jobs nor which plan is the best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from contracts.jobs.failures import FailureCode, JobFailed
from contracts.memory.plan import Plan
from contracts.metrics import Counters
from contracts.requests.checks.controls import changed_controls
from contracts.requests.entry_parameters import ControlParameters
from contracts.requests.parameters import JobParameters
from worker.pool.context import PoolContext
from worker.pool.eviction import ModelCache
from worker.pool.loading.fetcher import ModelFetcher, load_errors_as_job_failed
from worker.pool.model import LoadedModel
from worker.pool.plan_selector import PlanSelector
from worker.runtime import slices

_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True)
class Meanwhile:
    """The way in which others are served while something is loaded.

    Attributes:
        pause: serves them; called between slices.
        settle: called before weights are read or moved that others may use: the device is set up for none of them.
    """

    pause: Callable[[], object]
    settle: Callable[[], object]


class ModelLoader:
    """Loader of what is on this machine; only `ModelFetcher.prepare` downloads."""

    def __init__(
        self,
        context: PoolContext,
        fetcher: ModelFetcher,
        cache: ModelCache,
        plan_selector: PlanSelector,
        counters: Counters,
    ) -> None:
        self._context = context
        self._fetcher = fetcher
        self._cache = cache
        self._plan_selector = plan_selector
        self._counters = counters

    def load(self, id: str, plan: Plan) -> LoadedModel:
        """Load a model, placed by this plan.

        Raises:
            JobFailed: with MODEL_LOAD_FAILED.
            NotPrepared: its files must be downloaded first.
        """
        return self._counting_failures(id, lambda: self._load(id, plan))

    def load_missing(
        self,
        model: LoadedModel | None,
        id: str,
        plan: Plan,
        controls: Sequence[ControlParameters],
        vaes: Sequence[str],
        meanwhile: Meanwhile | None = None,
    ) -> LoadedModel:
        """Load what of a model, its ControlNets and its VAEs is not in memory; the cache has it then.

        Args:
            model: None where it must be loaded itself, by this plan.
            meanwhile: has others served between slices.

        Raises:
            JobFailed, NotPrepared: as `load`.
        """
        with slices.cut(None if meanwhile is None else meanwhile.pause):
            if model is None:
                model = self.load(id, plan)
            self._cache.enter(id, model)
            for control in controls:
                if meanwhile is not None:
                    meanwhile.settle()  # it may be made of the model's own weights
                self.load_controlnet(model, control)
            for vae in vaes:
                self.load_vae(model, vae)
        return model

    def load_controlnet(self, model: LoadedModel, control: ControlParameters) -> None:
        """Add a ControlNet to a model; raises as `load`, and JobFailed where an uploaded file is gone."""
        load_errors_as_job_failed(
            control.name, lambda: model.load_controlnet(control, self._locate_controlnet(control))
        )

    def load_vae(self, model: LoadedModel, name: str) -> None:
        """Add a VAE of the catalogue to a model, as this component; raises as `load`."""
        id = name.partition(":")[2]

        def load() -> None:
            model.load_vae(name, self._fetcher.locate_vae(id))

        load_errors_as_job_failed(id, load)

    def inspect(self, id: str) -> None:
        """Learn the model's components, if need be by loading it; raises as `load`."""
        self._counting_failures(id, lambda: self._inspect(id))

    def refuse_changed_controls(self, job: JobParameters) -> None:
        """Refuse a job whose ControlNets became others in the catalogue while it was waiting.

        Raises:
            JobFailed: with MODEL_LOAD_FAILED: what they would need of the request now.
        """
        catalogue = self._context.catalogue
        controls = [control for control in job.controls if control.key is None]
        if not controls:
            return
        model = self._fetcher.model_row(job.model)
        changed = load_errors_as_job_failed(
            controls[0].name, lambda: next(changed_controls(controls, model, catalogue), None)
        )
        if changed is not None:
            id, problem = changed
            raise JobFailed(
                FailureCode.MODEL_LOAD_FAILED,
                f"ControlNet {id} was changed in the catalogue while the job was waiting: {problem.field} "
                f"{problem.message}; send the request again",
            )

    def inspect_controlnet(self, control: ControlParameters, *, is_loaded: bool) -> None:
        """Learn the size of a ControlNet, and that its files are here unless it is loaded; raises as `load`."""
        if not is_loaded:
            # Before another model is evicted for files that may be missing.
            load_errors_as_job_failed(control.name, lambda: self._locate_controlnet(control))
        if control.key is None:  # the size of an uploaded one is in its job
            load_errors_as_job_failed(control.name, lambda: self._fetcher.measure_controlnet(control.name))

    def inspect_vae(self, name: str) -> None:
        """Learn the size of a VAE of the catalogue, and that its files are here; raises as `load`."""
        id = name.partition(":")[2]
        load_errors_as_job_failed(id, lambda: self._fetcher.locate_vae(id))

    def _locate_controlnet(self, control: ControlParameters) -> Path:
        """Its files; those of an uploaded one are fetched from the storage."""
        if control.key is None:
            return self._fetcher.locate_controlnet(control.name)
        return self._context.lora_files.locate(control, "controlnet")

    def _load(self, id: str, plan: Plan) -> LoadedModel:
        model = LoadedModel(self._fetcher.model_row(id), self._fetcher.locate(id), self._context, plan)
        self._counters.count("model_loads", model=id)
        return model

    def _inspect(self, id: str) -> None:
        """A single file that does not name its components is loaded to learn them."""
        if self._cache.find(id) is None:
            self._fetcher.locate(id)  # before another model is evicted for files that may be missing
        self._fetcher.measure(id)
        if self._plan_selector.has_unknown_components(id):
            model = self._load(id, self._plan_selector.default_plan(id))
            self._plan_selector.learn_components(model.components())
            self._cache.enter(id, model)

    def _counting_failures(self, id: str, load: Callable[[], _Loaded]) -> _Loaded:
        try:
            return load_errors_as_job_failed(id, load)
        except JobFailed:
            self._counters.count("model_load_failures", model=id)
            raise
