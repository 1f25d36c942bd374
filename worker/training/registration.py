"""Registers what was trained under its owner, by its content, as if it had been uploaded. Trains nothing."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from redis import Redis

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import Conflict
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.requests.entry_parameters import ControlParameters, LoraParameters, TextualInversionParameters
from contracts.requests.training.parameters import TrainedParameters, TrainingParameters
from contracts.requests.training.settings import Kind
from contracts.storage import Storage
from contracts.uploads.adapters import (
    CONTROLNETS,
    INVERSIONS,
    LORAS,
    UploadedControlNet,
    UploadedInversion,
    UploadedLora,
    UploadKind,
    UploadRegistry,
)
from contracts.uploads.owner_bytes import ByteLimit
from contracts.uploads.retention import Retention
from contracts.weights.adapters.inversion_files import read_inversion
from contracts.weights.adapters.lora_files import describe, read_lora
from contracts.weights.controls.controlnet_files import ControlNetFacts
from contracts.weights.formats.safetensors import read_header

_HASH_CHARACTERS = 8


class TrainedRegistration:
    """The registration of one training's files."""

    def __init__(
        self, connection: Redis, storage: Storage, catalogue: Catalogue, training: TrainingParameters, owner: str
    ) -> None:
        """`connection` decodes responses."""
        self._registry = UploadRegistry(connection, storage, Retention(connection, storage, gone_seconds=0))
        self._training, self._owner = training, owner
        self._family = catalogue.model(training.model).family

    def register(self, name: str, data: bytes) -> TrainedParameters:
        """Register a file; where the name was taken meanwhile, with the beginning of its hash behind it.

        Returns:
            What names it in a job.

        Raises:
            JobFailed: the owner has too many files of its kind.
            Unavailable: Redis or the storage does not answer.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            path = Path(folder) / "trained.safetensors"
            path.write_bytes(data)
            try:
                return self._add(name, path, sha256)
            except Conflict:
                try:
                    return self._add(f"{name}-{sha256[:_HASH_CHARACTERS]}", path, sha256)
                except Conflict as error:
                    raise JobFailed(FailureCode.INTERNAL, f"the result cannot be registered: {error}") from error

    def _add(self, name: str, path: Path, sha256: str) -> TrainedParameters:
        adding: Mapping[Kind, Callable[[str, Path, str], TrainedParameters]] = {
            "lora": self._add_lora,
            "textual_inversion": self._add_inversion,
            "controlnet": self._add_controlnet,
        }
        return adding[self._training.settings.kind](name, path, sha256)

    def _add_lora(self, name: str, path: Path, sha256: str) -> LoraParameters:
        facts = describe(read_lora(path), self._family, [self._training.model])
        fields = {"models": facts.models, "facts": facts}
        row: UploadedLora = self._store(LORAS, name, path, sha256, fields)
        return LoraParameters(name=row.id, key=row.source, sha256=row.sha256, values=row.facts.values)

    def _add_inversion(self, name: str, path: Path, sha256: str) -> TextualInversionParameters:
        facts = read_inversion(path)
        # A snapshot uses the training's word as well, since the prompts of samples contain it.
        fields = {"models": [self._training.model], "trigger": self._training.name, "facts": facts}
        row: UploadedInversion = self._store(INVERSIONS, name, path, sha256, fields)
        return TextualInversionParameters(
            name=row.id, words=row.words, key=row.source, sha256=row.sha256, vectors=row.facts.vectors
        )

    def _add_controlnet(self, name: str, path: Path, sha256: str) -> ControlParameters:
        facts = ControlNetFacts.of(read_header(path).tensors)
        fields = {"models": [self._training.model], "facts": facts}
        row: UploadedControlNet = self._store(CONTROLNETS, name, path, sha256, fields)
        return ControlParameters(controlnet=row.id, key=row.source, sha256=row.sha256, values=row.facts.values)

    def _store(self, kind: UploadKind[Any], name: str, path: Path, sha256: str, fields: dict[str, Any]) -> Any:
        limit = ByteLimit(self._owner, 0)
        given = {"family": self._family, **fields}
        return self._registry.add(kind, name, self._owner, path, sha256, given, limit)[0]
