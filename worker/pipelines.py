"""The warm pool: loads models, makes every task's pipeline from one set of components, evicts the unused.

Knows nothing of jobs; a pipeline and its scheduler are fresh objects, only the weights are shared.
"""

from __future__ import annotations

import gc
import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch

from contracts.catalogue import Catalogue, ModelSpec
from contracts.errors import CatalogueError, FailureCode, JobFailed, NotFound
from contracts.families import Mode
from contracts.parameters import LoraParameters
from contracts.records import Weights
from worker import checkpoints, previews
from worker.families import FamilyCode, load_family
from worker.fingerprints import Fingerprints
from worker.lora_stock import LoraStock
from worker.loras import Adapters
from worker.prompts import EmbeddingCache, Encoder
from worker.schedulers import make_scheduler

_Loaded = TypeVar("_Loaded")


class WarmModel:
    """One loaded model: its components, its ControlNets as they were asked for, its adapters.

    Attributes:
        base: the text-to-image pipeline that holds the components; jobs run on derived ones.
        weights: id and content hash for receipts.
    """

    def __init__(
        self,
        spec: ModelSpec,
        catalogue: Catalogue,
        device: torch.device,
        fingerprints: Fingerprints,
        embeddings: EmbeddingCache,
        stock: LoraStock,
    ) -> None:
        self.spec = spec
        self.family: FamilyCode = load_family(spec.family)
        self.device = device
        self.dtype = checkpoints.pick_dtype(spec, device)
        self._catalogue = catalogue
        self._fingerprints = fingerprints
        self._embeddings = embeddings
        path = checkpoints.locate_model(catalogue, spec, self.family)
        self.weights = Weights(id=spec.id, sha256=fingerprints.of(path, spec.variant), family=spec.family)
        self.base = checkpoints.load_model(catalogue, spec, self.family, path, self.dtype).to(device)
        self.adapters = Adapters(self.base, self.family, stock)
        self._controlnets: dict[str, tuple[Any, str]] = {}

    def pipeline(self, mode: Mode, scheduler: str, controlnets: Sequence[str] = ()) -> Any:
        """A fresh pipeline on the shared components, with a fresh scheduler. It paints from embeddings only.

        Raises:
            JobFailed: a ControlNet cannot be loaded.
        """
        extra: dict[str, Any] = {name: None for name in self.base.components if name.startswith("text_encoder")}
        extra["scheduler"] = make_scheduler(scheduler, self.base.scheduler.config)
        if controlnets:
            extra["controlnet"] = self._controlnet(controlnets)
        pipeline = derive(getattr(diffusers, self.family.pipelines[mode]), self.base, **extra)
        pipeline.set_progress_bar_config(disable=True)
        self.family.adapt(pipeline)
        return pipeline

    def encoder(self, loras: Sequence[LoraParameters]) -> Encoder:
        """The text encoders as they are now, with these adapters in them."""
        state = (self.weights.sha256, str(self.dtype), self.adapters.text_key(loras))
        return Encoder(self.base, self.family, self.device, self._embeddings, state)

    @cached_property
    def projection(self) -> previews.Projection:
        """From latents to the colours of a preview; fitted when the first preview is asked for."""
        return previews.fit(self.base.vae)

    def controlnet_weights(self, id: str, scale: float) -> Weights:
        """Id and content hash of a ControlNet that `pipeline` has loaded."""
        return Weights(id=id, sha256=self._controlnets[id][1], family=self.spec.family, scale=scale)

    def placement(self, controlnets: Sequence[str] | None = None) -> dict[str, str]:
        """Component -> device, with the named ControlNets, or all that are loaded."""
        named = sorted(self._controlnets) if controlnets is None else controlnets
        modules = {name: part for name, part in self.base.components.items() if _is_module(part)}
        modules |= {f"controlnet:{id}": self._controlnets[id][0] for id in named}
        return {name: str(next(module.parameters()).device) for name, module in modules.items()}

    def _controlnet(self, ids: Sequence[str]) -> Any:
        nets = [self._one_controlnet(id) for id in ids]
        if len(nets) == 1:
            return nets[0]
        return getattr(diffusers, self.family.multi_controlnet)(nets)

    def _one_controlnet(self, id: str) -> Any:
        if id not in self._controlnets:
            self._controlnets[id] = _or_load_failed(id, lambda: self._load_controlnet(id))
        return self._controlnets[id][0]

    def _load_controlnet(self, id: str) -> tuple[Any, str]:
        path = checkpoints.locate_controlnet(self._catalogue, self._catalogue.controlnet(id))
        module = checkpoints.load_controlnet(self.family, path, self.dtype).to(self.device)
        return module, self._fingerprints.of(path)


def derive(pipeline_class: Any, base: Any, **extra: Any) -> Any:
    """Another task's pipeline around the same component objects.

    `from_pipe` is no way to do it: without a dtype it upcasts the shared weights in place.
    """
    names = inspect.signature(pipeline_class.__init__).parameters
    components = {name: part for name, part in base.components.items() if name in names}
    settings = {name: base.config[name] for name in names if name in base.config and name not in components}
    return pipeline_class(**{**settings, **components, **extra})


class Pool:
    """Models that are ready to run, least recently used first."""

    def __init__(
        self,
        catalogue: Catalogue,
        device: str = "auto",
        max_models: int = 3,
        embedding_bytes: int = 2**28,
        stock: LoraStock | None = None,
    ) -> None:
        self.catalogue = catalogue
        self._stock = stock or LoraStock(catalogue)
        self.embeddings = EmbeddingCache(embedding_bytes)
        self.device = checkpoints.pick_device(device)
        self._max_models = max_models
        self._models: OrderedDict[str, WarmModel] = OrderedDict()
        self._fingerprints = Fingerprints()
        # The heartbeat's thread asks for reports while the work thread loads.
        self._lock = threading.Lock()

    @property
    def warm(self) -> list[str]:
        """Ids of the models that are ready, least recently used first."""
        with self._lock:
            return list(self._models)

    def model(self, id: str) -> WarmModel:
        """The model, loaded if it is not warm; the least recently used one may leave for it.

        Raises:
            JobFailed: with MODEL_LOAD_FAILED.
        """
        if id not in self._models:
            self._make_room()
            model = _or_load_failed(id, lambda: self._load(id))
            with self._lock:
                self._models[id] = model
        with self._lock:
            self._models.move_to_end(id)
            return self._models[id]

    def drop(self, id: str) -> None:
        """Forget a model and give its memory back."""
        with self._lock:
            self._models.pop(id, None)
        free_memory()

    def report(self) -> dict[str, Any]:
        """This pool's part of a `WorkerReport`."""
        with self._lock:
            models = dict(self._models)
        return {
            "device": describe_device(self.device),
            "warm": list(models),
            "adapters": {id: list(model.adapters.loaded) for id, model in models.items()},
            "placement": {id: model.placement() for id, model in models.items()},
        }

    def _load(self, id: str) -> WarmModel:
        return WarmModel(
            self.catalogue.model(id),
            self.catalogue,
            self.device,
            self._fingerprints,
            self.embeddings,
            self._stock,
        )

    def _make_room(self) -> None:
        while len(self._models) >= self._max_models:
            self.drop(next(iter(self._models)))


def describe_device(device: torch.device) -> str:
    """The device's name for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _is_module(part: object) -> bool:
    return isinstance(part, torch.nn.Module)


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
