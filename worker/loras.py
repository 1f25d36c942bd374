"""Adapters: checked before they are loaded, active for exactly one batch, gone after it.

A load that fails half-way leaves its other half active, so the state counts as unknown until it is proved clean.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from contracts.catalogue import Catalogue
from contracts.errors import FailureCode, JobFailed
from contracts.records import Weights
from contracts.tasks import Lora
from worker import checkpoints, lora_files
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
            lora_files.check(self._base, self._family, path)
            self._base.load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=name, use_safetensors=True
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
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
        layers = (layer for part in lora_files.targets(self._base).values() for layer in part.modules())
        self.clean = not any(isinstance(layer, BaseTunerLayer) for layer in layers)
