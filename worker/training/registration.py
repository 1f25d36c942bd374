"""Registers a trained LoRA under its owner, by its content, as if it had been uploaded. Knows no training."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from redis import Redis

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import Conflict, FailureCode, JobFailed
from contracts.requests.entry_parameters import LoraParameters
from contracts.storage import Storage
from contracts.uploads.adapters import LORAS, UploadedLora, UploadRegistry
from contracts.uploads.owner_bytes import ByteLimit
from contracts.uploads.retention import Retention
from contracts.weights.adapters.lora_files import describe, read_lora

_HASH_CHARACTERS = 8


class LoraRegistration:
    """The registration of one owner's LoRAs."""

    def __init__(self, connection: Redis, storage: Storage, catalogue: Catalogue, model: str, owner: str) -> None:
        """`connection` decodes responses; `model` is the one that they were trained on."""
        self._registry = UploadRegistry(connection, storage, Retention(connection, storage, gone_seconds=0))
        self._catalogue, self._model, self._owner = catalogue, model, owner

    def register(self, name: str, data: bytes) -> LoraParameters:
        """Register a file; where the name was taken meanwhile, with the beginning of its hash behind it.

        Returns:
            What names it in a job.

        Raises:
            JobFailed: the owner has too many LoRAs.
            Unavailable: Redis or the storage does not answer.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            path = Path(folder) / "lora.safetensors"
            path.write_bytes(data)
            try:
                row = self._add(name, path, sha256)
            except Conflict:
                try:
                    row = self._add(f"{name}-{sha256[:_HASH_CHARACTERS]}", path, sha256)
                except Conflict as error:
                    raise JobFailed(FailureCode.INTERNAL, f"the LoRA cannot be registered: {error}") from error
        return LoraParameters(name=row.id, key=row.source, sha256=row.sha256, values=row.facts.values)

    def _add(self, name: str, path: Path, sha256: str) -> UploadedLora:
        family = self._catalogue.model(self._model).family
        facts = describe(read_lora(path), family, [self._model])
        fields = {"family": family, "models": facts.models, "facts": facts}
        row, _ = self._registry.add(LORAS, name, self._owner, path, sha256, fields, ByteLimit(self._owner, 0))
        return row
