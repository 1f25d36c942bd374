"""Which memory plan each call gets within this worker's budget, and which plans have run out of memory.

Takes none of them: `placement.py` does. Knows no tensors.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from contracts.catalogue.cached import AnySpec
from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec, NetworkSpec, VaeSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.hub.errors import HubRefused, HubUnavailable
from contracts.memory.moves import Situation, cheapest, gives_same_image
from contracts.memory.plan import Plan
from contracts.memory.planner import candidates, plan, step_down, take_capacity
from contracts.memory.policy import Policy
from contracts.memory.sizes.component import Component, ModelComponents
from contracts.memory.sizes.extras import (
    size_adapter,
    size_controlnet,
    size_image_encoders,
    size_ip_adapter,
    size_vae,
)
from contracts.memory.sizes.models import read_components
from contracts.memory.sizes.networks import read_network
from contracts.memory.sizes.on_hub import read_hub_components, size_hub_extra
from contracts.memory.workload import Workload, default_workload
from contracts.requests.parameters import JobParameters
from worker.checkpoints.sources import class_needed

_log = logging.getLogger(__name__)

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
        #: Names whose files were measured on this machine.
        self._measured: set[str] = set()
        #: The thread that prepares measures too.
        self._lock = threading.RLock()
        self._candidates: dict[tuple[str, Workload], list[Plan]] = {}
        self._too_large: dict[tuple[str, Workload], int] = {}
        self._taken: dict[tuple[str, Workload], Plan] = {}

    def learn_components(self, model: ModelComponents) -> None:
        """Take the components of a loaded model, for a file that did not tell them."""
        with self._lock:
            self.capacity = self.capacity.knowing(models={model.model: model})
            self._candidates.clear()

    def knows(self, id: str) -> bool:
        """Whether the model's components are known, if only as they were published."""
        if id not in self.capacity.models:
            spec = self._catalogue.model(id)
            model = read_components(self._catalogue, spec, self._value_bytes(spec))
            if model is not None:
                self.learn_components(model)
        return id in self.capacity.models

    def is_measured(self, name: str) -> bool:
        """Whether the size of a model, `controlnet:ID` or `lora:ID` was read from files on this machine."""
        return name in self._measured

    def measure(self, name: str, path: Path) -> None:
        """Read the size of what is on this machine now; plans use it from then on, the API's too.

        Raises:
            CatalogueError: a file cannot be read.
        """
        kind, _, id = name.rpartition(":")
        if kind == "lora":
            value_bytes = self._extra_value_bytes(self._catalogue.lora(id))
            self._learn_extra(size_adapter(self._catalogue, id, value_bytes, path))
        elif kind == "ip_adapter":
            value_bytes = self._extra_value_bytes(self._catalogue.ip_adapter(id))
            self._learn_extra(size_ip_adapter(self._catalogue, id, value_bytes, path))
            with self._lock:
                self.capacity = self.capacity.knowing(extras=size_image_encoders(self._catalogue))
        elif kind in ("upscaler", "eraser"):
            facts = read_network(kind, path)
            with self._lock:
                self.capacity = self.capacity.knowing(networks={name: facts})
        elif kind in ("textual_inversion", "preprocessor"):
            pass  # a few kilobytes in host memory; its job plans for itself
        elif kind == "vae":
            value_bytes = self._extra_value_bytes(self._catalogue.vae(id))
            self._learn_extra(size_vae(self._catalogue, id, value_bytes, path))
        elif kind == "controlnet":
            value_bytes = self._extra_value_bytes(self._catalogue.controlnet(id))
            self._learn_extra(size_controlnet(self._catalogue, id, value_bytes, path))
        else:
            spec = self._catalogue.model(id).model_copy(update={"source": str(path)})
            model = read_components(self._catalogue, spec, self._value_bytes(spec))
            if model is not None:
                self.learn_components(model)
        with self._lock:
            self._measured.add(name)

    def measure_on_hub(self, row: AnySpec) -> bool:
        """Ask the hub for the size of what has not been fetched from it; what was measured in the meantime stays.

        Returns:
            Whether the hub answered.
        """
        try:
            if isinstance(row, ModelSpec):
                model = read_hub_components(self._catalogue, row, self._value_bytes(row), class_needed(row))
                with self._lock:
                    if model is not None and not self.is_measured(row.id):
                        self.learn_components(model)
            elif not isinstance(row, NetworkSpec):  # whose size its job learns, which runs beside the models
                value_bytes = self._extra_value_bytes(row)
                extra = size_hub_extra(self._catalogue, row, value_bytes, class_needed(row))
                with self._lock:
                    if extra is not None and not self.is_measured(extra.name):
                        self._learn_extra(extra)
        except HubUnavailable as error:
            _log.info("the size of %s is not known: %s", row.id, error)
            return False
        except (HubRefused, CatalogueError) as error:
            _log.warning("the size of %s is not known: %s", row.id, error)
        return True

    def _learn_extra(self, extra: Component | None) -> None:
        if extra is not None:
            with self._lock:
                self.capacity = self.capacity.knowing(extras={extra.name: extra})
                self._candidates.clear()

    def _extra_value_bytes(self, row: ControlNetSpec | VaeSpec | LoraSpec) -> int:
        """Of the dtype of its family's first model, as for all extras of the catalogue."""
        of_family = (model for model in self._catalogue.models if model.family == row.family)
        return next((self._value_bytes(model) for model in of_family), 0)

    def has_unknown_components(self, id: str) -> bool:
        """Whether the checkpoint is a single file whose components are known only once it is loaded."""
        return [part.name for part in self.capacity.models[id].components] == ["checkpoint"]

    def choose(self, job: JobParameters, images: int) -> Plan:
        """Return the best plan that fits and has not run out of memory yet; if there is none, the smallest."""
        workload = self._workload(job, images)
        bound = self._too_large.get((job.model, workload))
        every = self._candidates_for(job.model, workload)
        left = [one for one in every if bound is None or one.peak_bytes < bound] or every[-1:]
        return next((one for one in left if one.fits), left[-1])

    def choose_in(self, situation: Situation, job: JobParameters, images: int) -> Plan:
        """Return the plan that costs least over the expected calls; the image is that of the best plan."""
        best, workload = self.choose(job, images), self._workload(job, images)
        every = self._candidates_for(job.model, workload) if best.fits else ()
        slower = [one for one in every if one.peak_bytes < best.peak_bytes and gives_same_image(one, best)]
        taken = cheapest([best, *slower], situation)
        self._taken[job.model, workload] = taken
        return taken

    def step_down(self, job: JobParameters, images: int) -> Plan | None:
        """Record that the plan chosen last for such a call ran out of memory.

        Returns:
            That plan; None if no smaller one exists.
        """
        if job.model not in self.capacity.models:
            return None
        workload = self._workload(job, images)
        failed = self._taken.pop((job.model, workload), None) or self.choose(job, images)
        if step_down(self._candidates_for(job.model, workload), failed) is None:
            return None
        self._too_large[job.model, workload] = failed.peak_bytes
        return failed

    def default_plan(self, id: str) -> Plan:
        """The plan for one image of the model's default size."""
        return plan(
            self.capacity.models[id], default_workload(self._catalogue.model(id)), self.size_bytes, self._policy
        )

    def _candidates_for(self, model: str, workload: Workload) -> list[Plan]:
        key = (model, workload)
        with self._lock:
            if key not in self._candidates:
                if len(self._candidates) >= _MAX_WORKLOADS:
                    self._candidates.clear()
                    self._taken.clear()
                parts = self.capacity.models[model]
                self._candidates[key] = candidates(parts, workload, self.size_bytes, self._policy)
            return self._candidates[key]

    def _workload(self, job: JobParameters, images: int) -> Workload:
        spec = self._catalogue.model(job.model)
        return self.capacity.workload(spec.family_spec.id, job, self._value_bytes(spec), images)
