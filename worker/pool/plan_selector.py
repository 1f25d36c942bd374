"""Which memory plan each call gets within this worker's budget, and which plans have run out of memory.

Takes none of them: `placement.py` does. Knows no tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.components import ModelComponents, read_components, size_controlnet
from contracts.memory.plan import Plan, Policy, Workload, default_workload
from contracts.memory.planner import candidates, plan, step_down, take_capacity
from contracts.requests.parameters import JobParameters

#: Workloads whose candidates are remembered; listing them takes milliseconds.
_MAX_WORKLOADS = 256


class PlanSelector:
    """The memory plans of one device's calls.

    Attributes:
        size_bytes: of the device, for weights and activations together.
        capacity: what others need to plan as this worker does.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        size_bytes: int,
        value_bytes: Callable[[ModelSpec], int],
        policy: Policy | None = None,
    ) -> None:
        """`value_bytes`: of the dtype in which this worker computes a model."""
        self.size_bytes = size_bytes
        self._catalogue = catalogue
        self._value_bytes = value_bytes
        self._policy = policy or Policy()
        self.capacity = take_capacity(catalogue, size_bytes, self._policy, value_bytes)
        self._components = dict(self.capacity.models)
        self._candidates: dict[tuple[str, Workload], list[Plan]] = {}
        self._too_large: dict[tuple[str, Workload], int] = {}

    def learn_components(self, model: ModelComponents) -> None:
        """Take the components of a loaded model, for a file that did not tell them."""
        self._components[model.model] = model
        self._candidates.clear()

    def knows(self, id: str) -> bool:
        """Whether the model's components are known; if not, it must be downloaded first."""
        if id not in self._components:
            spec = self._catalogue.model(id)
            model = read_components(self._catalogue, spec, self._value_bytes(spec))
            if model is not None:
                self._components[id] = model
        return id in self._components

    def add_model(self, id: str, path: Path) -> None:
        """Read the components of a model that has been downloaded."""
        spec = self._catalogue.model(id).model_copy(update={"source": str(path)})
        model = read_components(self._catalogue, spec, self._value_bytes(spec))
        if model is not None:
            self.learn_components(model)

    def add_controlnet(self, id: str, model: str, path: Path) -> None:
        """Read the size of a ControlNet that has been downloaded; plans use it from now on, the API's too."""
        value_bytes = self._value_bytes(self._catalogue.model(model))
        extra = size_controlnet(self._catalogue, id, value_bytes, path)
        if extra is not None:
            self.capacity.extras[extra.name] = extra
            self._candidates.clear()

    def knows_controlnet(self, id: str) -> bool:
        """Whether its size was read from its files; for one that is still on a hub it is assumed."""
        extra = self.capacity.extras.get(f"controlnet:{id}")
        return extra is not None and extra.origin == "files"

    def has_unknown_components(self, id: str) -> bool:
        """Whether the checkpoint is a single file whose components are known only once it is loaded."""
        return [part.name for part in self._components[id].components] == ["checkpoint"]

    def choose(self, job: JobParameters, images: int) -> Plan:
        """Return the best plan that fits and has not run out of memory yet; if there is none, the smallest."""
        workload = self._workload(job, images)
        bound = self._too_large.get((job.model, workload))
        every = self._candidates_for(job.model, workload)
        left = [one for one in every if bound is None or one.peak_bytes < bound] or every[-1:]
        return next((one for one in left if one.fits), left[-1])

    def step_down(self, job: JobParameters, images: int) -> Plan | None:
        """Record that the plan chosen last for such a call ran out of memory.

        Returns:
            That plan; None if no smaller one exists.
        """
        if job.model not in self._components:
            return None
        workload = self._workload(job, images)
        failed = self.choose(job, images)
        if step_down(self._candidates_for(job.model, workload), failed) is None:
            return None
        self._too_large[job.model, workload] = failed.peak_bytes
        return failed

    def default_plan(self, id: str) -> Plan:
        """The plan for one image of the model's default size."""
        return plan(
            self._components[id], default_workload(self._catalogue.model(id)), self.size_bytes, self._policy
        )

    def batch_pixels(self) -> dict[str, int]:
        """Model -> pixels that one call may generate; models that cannot be read here are missing."""
        pixels = {}
        for row in self._catalogue.models:
            with suppress(CatalogueError):
                if self.knows(row.id):
                    pixels[row.id] = self.default_plan(row.id).batch_pixels
        return pixels

    def _candidates_for(self, model: str, workload: Workload) -> list[Plan]:
        key = (model, workload)
        if key not in self._candidates:
            if len(self._candidates) >= _MAX_WORKLOADS:
                self._candidates.clear()
            self._candidates[key] = candidates(self._components[model], workload, self.size_bytes, self._policy)
        return self._candidates[key]

    def _workload(self, job: JobParameters, images: int) -> Workload:
        spec = self._catalogue.model(job.model)
        return self.capacity.workload(spec.family, job, self._value_bytes(spec), images)
