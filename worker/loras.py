"""Adapters: checked before they are loaded, active for exactly one batch, gone after it.

A load that fails half-way leaves its other half active, so the state counts as unknown until it is proved clean.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from contracts.catalogue import Catalogue
from contracts.errors import FailureCode, JobFailed
from contracts.records import Weights
from contracts.tasks import Lora
from worker import checkpoints
from worker.families import FamilyCode
from worker.fingerprints import Fingerprints

_log = logging.getLogger(__name__)


class Adapters:
    """The adapters of one warm model.

    Attributes:
        clean: whether the components are known to be as they were loaded; else the model must be loaded anew.
    """

    def __init__(self, base: Any, family: FamilyCode, catalogue: Catalogue, fingerprints: Fingerprints) -> None:
        self.clean = True
        self._base = base
        self._family = family
        self._catalogue = catalogue
        self._fingerprints = fingerprints

    @contextmanager
    def active(self, loras: Sequence[Lora]) -> Iterator[list[Weights]]:
        """Exactly these adapters act inside; none afterwards.

        Raises:
            JobFailed: with LORA_INCOMPATIBLE; nothing acts then.
        """
        if not loras:
            yield []
            return
        self.clean = False
        try:
            yield self._load(loras)
        finally:
            self._unload()

    def _load(self, loras: Sequence[Lora]) -> list[Weights]:
        loaded: list[Weights] = []
        names: list[str] = []
        for lora in loras:
            row = self._catalogue.lora(lora.name)
            path = checkpoints.locate_lora(self._catalogue, row)
            sha256 = self._fingerprints.of(path)
            # A client's own name may hold dots, or be one of torch's attributes.
            names.append(f"lora_{sha256[:16]}")
            self._load_one(lora.name, path, names[-1])
            loaded.append(Weights(id=lora.name, sha256=sha256, family=row.family, scale=lora.scale))
        self._base.set_adapters(names, [lora.scale for lora in loras])
        return loaded

    def _load_one(self, id: str, path: Path, name: str) -> None:
        try:
            check(self._base, self._family, path)
            self._base.load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=name, use_safetensors=True
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            _log.exception("LoRA %s cannot be used", id)
            reason = (str(error).splitlines() or [""])[0][:300]
            raise JobFailed(FailureCode.LORA_INCOMPATIBLE, f"LoRA {id} cannot be used: {reason}") from error
        if not any(name in names for names in self._base.get_list_adapters().values()):
            raise JobFailed(FailureCode.LORA_INCOMPATIBLE, f"LoRA {id} has no weights for this model")

    def _unload(self) -> None:
        try:
            self._base.unload_lora_weights()
        except Exception:  # noqa: BLE001 - whatever went wrong, the model stays unclean and is loaded anew
            _log.exception("adapters could not be unloaded")
            return
        layers = (layer for part in _targets(self._base).values() for layer in part.modules())
        self.clean = not any(isinstance(layer, BaseTunerLayer) for layer in layers)


#: Part of a key -> which axis of the tensor must equal the layer's inputs (1) or outputs (0).
_HALVES = {
    ".lora_A.": 1, ".lora.down.": 1, ".lora_linear_layer.down.": 1,
    ".lora_B.": 0, ".lora.up.": 0, ".lora_linear_layer.up.": 0,
}  # fmt: skip


def check(base: Any, family: FamilyCode, path: Path) -> None:
    """Hold the file against the model, before anything is loaded.

    Raises:
        ValueError: it would fail half-way, have no effect, or change the model for good.
    """
    weights = _read(base, family, path)
    layers = {name: _layers(module) for name, module in _targets(base).items()}
    hits = 0
    for key, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{key} holds values that are no numbers")
        component, _, rest = key.partition(".")
        if component not in layers:
            raise ValueError(f"{key[:120]} belongs to no part of {family.id}")
        hits += _check_tensor(layers[component], component, rest, tensor)
    if not hits:
        raise ValueError("it holds no LoRA weights")


def _check_tensor(layers: Mapping[str, Any], component: str, rest: str, tensor: torch.Tensor) -> int:
    half = next((half for half in _HALVES if half in rest), None)
    if half is None:
        return 0
    name, axis = rest.split(half)[0], _HALVES[half]
    layer = layers.get(name) or layers.get(f"text_model.{name}") or layers.get(name.removeprefix("text_model."))
    if layer is None:
        raise ValueError(f"{component} has no layer {name}")
    # A FLUX layer would be widened to fit, for good.
    if tensor.shape[axis] != layer.weight.shape[axis]:
        raise ValueError(f"{component}.{name} is {tuple(layer.weight.shape)}, the file has {tuple(tensor.shape)}")
    return 1


def _read(base: Any, family: FamilyCode, path: Path) -> dict[str, torch.Tensor]:
    """The file's tensors under diffusers' names, whatever trainer wrote it."""
    options = {"unet_config": base.unet.config} if family.denoiser == "unet" else {}
    found = base.lora_state_dict(str(path.parent), weight_name=path.name, use_safetensors=True, **options)
    weights: dict[str, torch.Tensor] = found[0] if isinstance(found, tuple) else found
    return weights


def _targets(base: Any) -> dict[str, torch.nn.Module]:
    parts = {name: getattr(base, name, None) for name in base._lora_loadable_modules}
    return {name: part for name, part in parts.items() if part is not None}


def _layers(module: torch.nn.Module) -> dict[str, Any]:
    """Layers that an adapter may change, under the names that they have without any."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return {
        name.replace(".base_layer", ""): layer
        for name, layer in module.named_modules()
        if isinstance(layer, kinds) and ".lora_" not in name
    }
