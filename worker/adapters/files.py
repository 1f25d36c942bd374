"""Finds an adapter's file on this machine: the operator's where the catalogue says, an uploaded one in a folder.

Uploaded files come from the storage once, are held against the content that the job was accepted with, and leave
least recently used first. Loaded adapters keep copies of their own, so a file may go at any time.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import FailureCode, JobFailed, NotFound
from contracts.metrics import Counters
from contracts.requests.parameters import LoraParameters
from contracts.storage import Storage
from worker.checkpoints import loader as checkpoints
from worker.checkpoints.files import ContentHasher


@dataclass(frozen=True)
class Limits:
    """What may be kept: adapters loaded beside one model, in number and bytes, and bytes of fetched files.

    A job's own adapters may exceed them while it runs.
    """

    loaded: int = 16
    loaded_bytes: int = 2 * 2**30
    file_bytes: int = 16 * 2**30


class LoraFiles:
    """Files of adapters, for all models of one worker; several workers may share the folder.

    Attributes:
        bounds: what may be kept of them, here and in memory.
        tally: counts what becomes of them.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        storage: Storage | None = None,
        folder: Path = Path(),
        bounds: Limits | None = None,
        tally: Counters | None = None,
    ) -> None:
        """Without a storage only the catalogue's own are found."""
        self.bounds = bounds or Limits()
        self.tally = Counters() if tally is None else tally
        self._catalogue = catalogue
        self._storage = storage
        self._folder = folder
        self._hasher = ContentHasher()

    def fingerprint(self, path: Path) -> str:
        """Sha256 of a file."""
        return self._hasher.hash(path)

    def locate(self, lora: LoraParameters) -> Path:
        """The adapter's file, fetched where it is not here yet.

        Raises:
            JobFailed: it is there no more, or not as it was.
            NotFound: the catalogue has no such adapter.
            Unavailable: the storage does not answer.
        """
        if lora.key is None or lora.sha256 is None:
            return checkpoints.locate_lora(self._catalogue, self._catalogue.lora(lora.name))
        path = self._folder / f"{lora.sha256}.safetensors"
        if path.exists():
            os.utime(path)
        else:
            self._fetch(lora, lora.key, path)
        return path

    def _fetch(self, lora: LoraParameters, key: str, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            if self._storage is None:
                raise NotFound("stored object", key)
            self._storage.read_file(key, part)
            with part.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != lora.sha256:
                    raise JobFailed(FailureCode.INPUT_MISSING, f"the file of LoRA {lora.name} is damaged")
            self._make_room(part.stat().st_size)
            part.replace(path)
        except NotFound:
            message = f"the file of LoRA {lora.name} is no longer in the storage"
            raise JobFailed(FailureCode.INPUT_MISSING, message) from None
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, size_bytes: int) -> None:
        """The new file stays, whatever its size."""
        kept = sorted((file.stat().st_mtime, file) for file in self._folder.glob("*.safetensors"))
        total = size_bytes + sum(file.stat().st_size for _, file in kept)
        for _, file in kept:
            if total <= self.bounds.file_bytes:
                return
            total -= file.stat().st_size
            file.unlink(missing_ok=True)
