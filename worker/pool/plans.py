"""Which plan each batch gets within this worker's budget, and which plans have proved too large.

Takes none of them: `placement.py` does. Knows no tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.components import ModelComponents, read_components, weigh_controlnet
from contracts.memory.plan import Plan, Policy, Workload, own_load
from contracts.memory.planner import candidates, plan, step_down, take_capacity
from contracts.requests.parameters import JobParameters

#: Ladders that are remembered; one takes milliseconds to climb.
_MAX_LADDERS = 256


class PlanSelector:
    """The device's bytes, and how each model's batches fit into them.

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
        self._inventories = dict(self.capacity.inventories)
        self._ladders: dict[tuple[str, Workload], list[Plan]] = {}
        self._too_large: dict[tuple[str, Workload], int] = {}

    def know(self, inventory: ModelComponents) -> None:
        """What a model really consists of, where its file did not tell."""
        self._inventories[inventory.model] = inventory
        self._ladders.clear()

    def knows(self, id: str) -> bool:
        """Whether the model can be planned; else it must be fetched first."""
        if id not in self._inventories:
            spec = self._catalogue.model(id)
            inventory = read_components(self._catalogue, spec, self._value_bytes(spec))
            if inventory is not None:
                self._inventories[id] = inventory
        return id in self._inventories

    def fetched(self, id: str, path: Path) -> None:
        """The model is on this machine now."""
        spec = self._catalogue.model(id).model_copy(update={"source": str(path)})
        inventory = read_components(self._catalogue, spec, self._value_bytes(spec))
        if inventory is not None:
            self.know(inventory)

    def controlnet_fetched(self, id: str, model: str, path: Path) -> None:
        """The ControlNet is on this machine now, and from here on it is planned with, by the API too."""
        value_bytes = self._value_bytes(self._catalogue.model(model))
        extra = weigh_controlnet(self._catalogue, id, value_bytes, path)
        if extra is not None:
            self.capacity.extras[extra.name] = extra
            self._ladders.clear()

    def knows_controlnet(self, id: str) -> bool:
        """Whether it was weighed; one that is still on a hub has an assumed weight, and must be fetched first."""
        extra = self.capacity.extras.get(f"controlnet:{id}")
        return extra is not None and extra.origin == "files"

    def is_vague(self, id: str) -> bool:
        """Whether the checkpoint is one file, whose components cannot be told apart before it is loaded."""
        return [part.name for part in self._inventories[id].components] == ["checkpoint"]

    def choose(self, job: JobParameters, images: int) -> Plan:
        """The best plan that fits and has not failed for such a batch; the smallest where there is none."""
        load = self._load(job, images)
        bound = self._too_large.get((job.model, load))
        ladder = self._ladder(job.model, load)
        left = [rung for rung in ladder if bound is None or rung.peak_bytes < bound] or ladder[-1:]
        return next((rung for rung in left if rung.fits), left[-1])

    def step_down(self, job: JobParameters, images: int) -> Plan | None:
        """Remember that the plan chosen last for such a batch ran out of memory.

        Returns:
            That plan; None where there is no smaller one.
        """
        if job.model not in self._inventories:
            return None
        load = self._load(job, images)
        failed = self.choose(job, images)
        if step_down(self._ladder(job.model, load), failed) is None:
            return None
        self._too_large[job.model, load] = failed.peak_bytes
        return failed

    def own_plan(self, id: str) -> Plan:
        """The plan for one image as the model's row has it by default."""
        return plan(self._inventories[id], own_load(self._catalogue.model(id)), self.size_bytes, self._policy)

    def batch_pixels(self) -> dict[str, int]:
        """Model -> pixels that one pipeline call may paint; a model that cannot be read here has no bound yet."""
        pixels = {}
        for row in self._catalogue.models:
            with suppress(CatalogueError):
                if self.knows(row.id):
                    pixels[row.id] = self.own_plan(row.id).batch_pixels
        return pixels

    def _ladder(self, model: str, load: Workload) -> list[Plan]:
        key = (model, load)
        if key not in self._ladders:
            if len(self._ladders) >= _MAX_LADDERS:
                self._ladders.clear()
            self._ladders[key] = candidates(self._inventories[model], load, self.size_bytes, self._policy)
        return self._ladders[key]

    def _load(self, job: JobParameters, images: int) -> Workload:
        spec = self._catalogue.model(job.model)
        return self.capacity.load(spec.family, job, self._value_bytes(spec), images)
