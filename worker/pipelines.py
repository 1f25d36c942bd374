"""The warm pool: the models in memory, which of them are on the device, and who leaves for whom.

Plans first, then loads no more than the plan holds. A model that must leave the device goes to host memory where
that has room, else it is dropped. Knows nothing of jobs but what they ask for.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from contracts.catalogue import Catalogue, ModelSpec
from contracts.errors import CatalogueError, FailureCode, JobFailed, NotFound
from contracts.metrics import Tally
from contracts.parameters import JobParameters, as_one
from contracts.plans import Plan, Policy
from contracts.records import MemoryUse
from worker import checkpoints
from worker.budget import Budget
from worker.embeddings import EmbeddingCache
from worker.families import Call, load_family, texts_of
from worker.fingerprints import Fingerprints
from worker.kernel_choice import KernelChoice
from worker.lora_stock import LoraStock
from worker.meter import Meter
from worker.prompts import Encoder
from worker.warm_models import Surroundings, WarmModel

_log = logging.getLogger(__name__)

_Loaded = TypeVar("_Loaded")

#: Of a budget that is enforced, what plans may fill: an estimate is no measurement.
_PLANNED_SHARE = 0.95


class Pool:
    """Models that are ready to run, least recently used first.

    Attributes:
        budget: chooses the plan of each batch.
        meter: what the running batch takes of the device's memory.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        device: str = "auto",
        max_models: int = 3,
        embedding_bytes: int = 2**28,
        budget_bytes: int | None = None,
        host_bytes: int = 0,
        policy: Policy | None = None,
        tally: Tally | None = None,
        stock: LoraStock | None = None,
        encodes_ahead: bool = False,
        kernels: KernelChoice | None = None,
    ) -> None:
        """Empty.

        Args:
            max_models: on the device at once, whatever their bytes.
            embedding_bytes: of host memory for the embeddings of prompts.
            budget_bytes: of the device; they are enforced. None: what the device has.
            host_bytes: of host memory for models that had to leave the device.
            encodes_ahead: whether `encode_ahead` may do anything.
        """
        self.catalogue = catalogue
        self.device = checkpoints.pick_device(device)
        self.embeddings = EmbeddingCache(embedding_bytes)
        self.meter = Meter(self.device, budget_bytes)
        size_bytes = int(budget_bytes * _PLANNED_SHARE) if budget_bytes else checkpoints.device_bytes(self.device)
        self.budget = Budget(catalogue, size_bytes, self._value_bytes, policy)
        self._max_models, self._host_bytes = max_models, host_bytes
        self._tally = tally or Tally()
        self._models: OrderedDict[str, WarmModel] = OrderedDict()
        self._around = Surroundings(
            catalogue,
            self.device,
            Fingerprints(),
            self.embeddings,
            self.meter,
            stock or LoraStock(catalogue),
            kernels or KernelChoice(),
            encodes_ahead,
        )
        # The heartbeat's thread asks for reports while the work thread loads.
        self._lock = threading.Lock()

    @property
    def warm(self) -> list[str]:
        """Ids of the models that are ready, on the device or parked, least recently used first."""
        with self._lock:
            return list(self._models)

    def prepare(self, id: str) -> None:
        """Have a model's files on this machine, read through and known by content; for any thread.

        Raises:
            Exception: whatever loading the model would meet.
        """
        spec = self.catalogue.model(id)
        path = checkpoints.locate_model(self.catalogue, spec, load_family(spec.family))
        self._around.fingerprints.of(path, spec.variant)

    def model(self, id: str) -> WarmModel:
        """The model, placed for one image as its row has it by default; others may leave for it.

        Raises:
            JobFailed: with MODEL_LOAD_FAILED.
        """
        self._of_model(id, lambda: self._inspect(id))
        return self._place(id, self.budget.own_plan(id), [])

    def ready(self, job: JobParameters, images: int) -> WarmModel:
        """The job's model, placed by the plan for a call of so many images, with the ControlNets that it names.

        Raises:
            JobFailed: with MODEL_LOAD_FAILED.
            torch.OutOfMemoryError: the device has no room for the weights.
        """
        self._of_model(job.model, lambda: self._inspect(job.model))
        controlnets = list(dict.fromkeys(control.controlnet for control in job.controls))
        for controlnet in controlnets:
            _or_load_failed(controlnet, partial(self._inspect_controlnet, controlnet, job.model))
        return self._place(job.model, self.budget.choose(job, images), controlnets)

    def fitting(self, batch: Sequence[JobParameters]) -> int:
        """How many of these jobs, from the first on, one call can serve: adapters must not cost it a better plan.

        The first job is always one of them.
        """
        with suppress(CatalogueError):
            if len(batch) > 1 and self.budget.knows(batch[0].model):
                for count in range(len(batch), 1, -1):
                    load = as_one(batch[:count])
                    plain = load.model_copy(update={"loras": as_one(batch[:1]).loras})
                    plans = [self.budget.choose(one, load.num_images) for one in (load, plain)]
                    if plans[0].rung == plans[1].rung and plans[0].fits:
                        return count
                return 1
        return len(batch)

    def step_down(self, job: JobParameters, images: int) -> str | None:
        """Remember that such a batch ran out of memory: its next one gets a smaller plan.

        Returns:
            The name of the plan that was too large; None where there is no smaller one.
        """
        failed = self.budget.step_down(job, images)
        if failed is None:
            return None
        self._tally.count("out_of_memory_steps", model=job.model)
        return failed.rung

    @property
    def can_encode_ahead(self) -> bool:
        """Whether `encode_ahead` could do anything."""
        with self._lock:
            return any(model.hosts_t5 for model in self._models.values())

    def encode_ahead(self, job: JobParameters, goes_on: Callable[[], bool]) -> int:
        """Have T5 read the texts of a job that waits, where it works on the CPU; for a thread beside the jobs'.

        Args:
            goes_on: asked before each text.

        Returns:
            How many texts were encoded that were not known.
        """
        with self._lock:
            model = self._models.get(job.model)
        encoded = 0 if model is None else model.encode_ahead(Call(job, texts_of([job])), goes_on)
        self._tally.count("prompts_encoded_ahead", encoded, model=job.model)
        return encoded

    def count_look_ups(self, model: WarmModel, encoder: Encoder) -> None:
        """Add a batch's look-ups of embeddings to the service's figures."""
        self._tally.count("embedding_cache_hits", encoder.hits, model=model.spec.id)
        self._tally.count("embedding_cache_misses", encoder.misses, model=model.spec.id)
        self._tally.count("prompts_found_ahead", encoder.use.ahead, model=model.spec.id)

    def memory_of(self, model: WarmModel, ran_out: Sequence[str]) -> MemoryUse:
        """What the batch that has just run took, for its receipt; `ran_out` are the plans that were too large."""
        report, plan = model.report(), model.homes.plan
        return MemoryUse(
            plan=report["rung"],
            budget_bytes=self.budget.size_bytes,
            planned_bytes=0 if plan is None else plan.peak_bytes,
            peak_bytes=self.meter.peak_bytes,
            ran_out=list(ran_out),
        )

    def drop(self, id: str) -> None:
        """Forget a model and give its memory back."""
        with self._lock:
            self._models.pop(id, None)
        free_memory()

    @property
    def resident_bytes(self) -> int:
        """Weights on the device: those of all models, and their adapters."""
        with self._lock:
            models = list(self._models.values())
        return sum(model.resident_bytes for model in models)

    def report(self) -> dict[str, Any]:
        """This pool's part of a `WorkerReport`."""
        with self._lock:
            models = dict(self._models)
        return {
            "device": checkpoints.describe_device(self.device),
            "budget_bytes": self.budget.size_bytes,
            "resident_bytes": sum(model.resident_bytes for model in models.values()),
            "host_bytes": sum(model.homes.host_bytes for model in models.values()),
            "warm": list(models),
            "parked": [id for id, model in models.items() if model.parked],
            "adapters": {id: list(model.adapters.loaded) for id, model in models.items()},
            "placement": {id: model.placement() for id, model in models.items()},
            "models": {id: model.report() for id, model in models.items()},
            "embeddings": self.embeddings.report(),
        }

    def _place(self, id: str, plan: Plan, controlnets: list[str]) -> WarmModel:
        model = self._models.get(id)
        if model is not None and not model.serves(plan):
            self.drop(id)
            model = None
        if model is not None and not model.parked:
            self._tally.count("warm_hits", model=id)
        self._make_room(id, plan.peak_bytes)
        if model is None:
            model = self._of_model(id, lambda: self._load(id, plan))
        with self._lock:
            self._models[id] = model
            self._models.move_to_end(id)
        for controlnet in controlnets:
            _or_load_failed(controlnet, partial(model.load_controlnet, controlnet))
        self._settle(model, plan)
        self._bound_host(id)
        return model

    def _settle(self, model: WarmModel, plan: Plan) -> None:
        if model.adapters.resident_bytes + plan.peak_bytes > self.budget.size_bytes:
            model.forget_adapters()
        try:
            model.homes.settle(plan)
        except Exception:
            # Half of it may have moved.
            self.drop(model.spec.id)
            raise

    def _load(self, id: str, plan: Plan) -> WarmModel:
        model = WarmModel(self.catalogue.model(id), self._around, plan)
        self._tally.count("model_loads", model=id)
        return model

    def _of_model(self, id: str, load: Callable[[], _Loaded]) -> _Loaded:
        try:
            return _or_load_failed(id, load)
        except JobFailed:
            self._tally.count("model_load_failures", model=id)
            raise

    def _inspect(self, id: str) -> None:
        """Know what the model consists of: one that is still on a hub is fetched for that, one file is loaded."""
        if not self.budget.knows(id):
            spec = self.catalogue.model(id)
            self.budget.fetched(id, checkpoints.locate_model(self.catalogue, spec, load_family(spec.family)))
        if self.budget.is_vague(id):
            model = self._load(id, self.budget.own_plan(id))
            self.budget.know(model.inventory())
            with self._lock:
                self._models[id] = model

    def _inspect_controlnet(self, id: str, model: str) -> None:
        """Know what it weighs: one that is still on a hub is fetched for that."""
        if not self.budget.knows_controlnet(id):
            path = checkpoints.locate_controlnet(self.catalogue, self.catalogue.controlnet(id))
            self.budget.controlnet_fetched(id, model, path)

    def _make_room(self, id: str, needed_bytes: int) -> None:
        """Have others leave the device, the least recently used first, until so many bytes are free."""
        others = [other for other in self._models if other != id and not self._models[other].parked]
        while others and (
            len(others) >= self._max_models
            or sum(self._models[other].resident_bytes for other in others) + needed_bytes > self.budget.size_bytes
        ):
            self._evict(others.pop(0))

    def _evict(self, id: str) -> None:
        model = self._models[id]
        parked = sum(other.homes.host_bytes for other in self._models.values() if other is not model)
        to = "host" if parked + model.homes.bytes <= self._host_bytes else "dropped"
        if to == "host":
            try:
                model.park()
            except Exception:  # noqa: BLE001 - whatever it was, nothing is known of its homes any more
                _log.exception("%s could not be parked, and is dropped", id)
                to = "dropped"
        if to == "dropped":
            self.drop(id)
        self._tally.count("evictions", model=id, to=to)
        free_memory()

    def _bound_host(self, id: str) -> None:
        """The model that runs may need the host memory in which others are parked."""
        for other in [other for other, model in self._models.items() if model.parked and other != id]:
            if sum(model.homes.host_bytes for model in self._models.values()) <= self._host_bytes:
                return
            self._tally.count("evictions", model=other, to="dropped")
            self.drop(other)

    def _value_bytes(self, spec: ModelSpec) -> int:
        return checkpoints.pick_dtype(spec, self.device).itemsize


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _or_load_failed(id: str, load: Callable[[], _Loaded]) -> _Loaded:
    try:
        return load()
    except (JobFailed, torch.OutOfMemoryError, MemoryError):
        raise
    except (NotFound, CatalogueError) as error:
        raise JobFailed(FailureCode.MODEL_LOAD_FAILED, f"{id} cannot be loaded: {error}") from error
    except Exception as error:
        message = f"{id} cannot be loaded: {first_line(error)}"
        raise JobFailed(FailureCode.MODEL_LOAD_FAILED, message) from error


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a client and without this machine's paths."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].replace(str(Path.home()), "~")[:300]
