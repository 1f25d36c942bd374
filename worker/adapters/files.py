"""Finds files of adapters and ControlNets: the catalogue's, and uploaded ones in a folder of fetched files.

Those of the catalogue have been prepared before; here they are only looked up. An uploaded file is fetched from
the storage once, must have the SHA-256 that its job was accepted with, and is evicted least recently used first.
Loaded LoRAs are copies, so a file may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import CatalogueError, NotFound
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.receipt import Weights
from contracts.metrics import Counters
from contracts.storage import Storage
from worker.checkpoints.files import ContentHasher
from worker.checkpoints.places import Places

_log = logging.getLogger(__name__)


#: Kind, as in the names of `JobParameters.needs` -> what messages call it.
_NOUNS = {
    "lora": "LoRA",
    "textual_inversion": "textual inversion",
    "ip_adapter": "IP-Adapter",
    "controlnet": "ControlNet",
}


def missing(kind: str) -> FailureCode:
    """The code of a failed job whose file of this kind is gone."""
    return FailureCode.LORA_MISSING if kind == "lora" else FailureCode.ADAPTER_MISSING


class AdapterFile(Protocol):
    """Description of one file in a job's parameters.

    Attributes:
        name: id of its row.
        key, sha256: of an uploaded file; None for one of the catalogue.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> str | None: ...  # noqa: D102
    @property
    def sha256(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True)
class Limits:
    """Limits on loaded adapters. The LoRAs of a running job may exceed the first two.

    Attributes:
        loaded: LoRAs in memory beside each model.
        loaded_bytes: bytes of their tensors.
        file_bytes: bytes of fetched files on disk.
    """

    loaded: int = 16
    loaded_bytes: int = 2 * 2**30
    file_bytes: int = 16 * 2**30


class LoraFiles:
    """LoRA files of all models of one worker. Several workers may share the folder.

    Attributes:
        limits: of the files here, and of the LoRAs loaded from them.
        places: where the catalogue's files are.
        hasher: of all files of this worker.
        counters: counts loads, switches and evictions.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        storage: Storage | None = None,
        folder: Path = Path(),
        limits: Limits | None = None,
        counters: Counters | None = None,
        places: Places | None = None,
    ) -> None:
        """`folder` holds fetched files; without a storage only the catalogue's LoRAs are found."""
        self.places = places or Places(catalogue)
        self.hasher = ContentHasher()
        self.limits = limits or Limits()
        self.counters = Counters() if counters is None else counters
        self._storage = storage
        self._folder = folder

    def fingerprint(self, path: Path) -> str:
        """Return the SHA-256 of a file, in hex."""
        return self.hasher.hash(path)

    def weights(self, file: AdapterFile, sha256: str, family: str, kind: str = "lora") -> Weights:
        """Describe a file that was located, for receipts: its name, its content, and the commit on a hub."""
        if file.key is None:
            return self.places.weights(f"{kind}:{file.name}", sha256)
        return Weights(id=file.name, sha256=sha256, family=family)

    def locate(self, file: AdapterFile, kind: str = "lora") -> Path:
        """Return the path of a file, fetching it from the storage if it is not here.

        Args:
            kind: as in the names of `JobParameters.needs`.

        Raises:
            JobFailed: LORA_MISSING, of another kind ADAPTER_MISSING: its row or its file is gone; LORA_DAMAGED or
                ADAPTER_DAMAGED: the stored file is not the one that was uploaded.
            NotPrepared: the file of a row of the catalogue must be downloaded first.
            Unavailable: the storage does not answer.
        """
        if file.key is None or file.sha256 is None:
            return self._locate_row(file.name, kind)
        path = self._folder / f"{file.sha256}.safetensors"
        if self._is_whole(path, file.sha256):
            # Only the time of use: a file whose time of change moves is hashed again.
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        else:
            self._fetch(kind, file, file.key, file.sha256, path)
        return path

    def _is_whole(self, path: Path, sha256: str) -> bool:
        """Whether a fetched file is here, as it was fetched: a disk may have lost a part of it."""
        try:
            return self.fingerprint(path) == sha256
        except FileNotFoundError:
            return False

    def _locate_row(self, id: str, kind: str) -> Path:
        """Return the file of a row of the catalogue, which may have changed since the job was accepted."""
        shown = f"{_NOUNS[kind]} {id}"
        try:
            return self.places.locate(f"{kind}:{id}")
        except NotFound:
            message = f"{shown} was removed from the catalogue while the job was waiting; use another one"
            raise JobFailed(missing(kind), message) from None
        except (CatalogueError, OSError) as error:
            _log.error("%s: %s", shown, error)
            message = f"the file of {shown} is not on the worker; the worker's log says where it was expected"
            raise JobFailed(missing(kind), message) from error

    def _fetch(self, kind: str, named: AdapterFile, key: str, sha256: str, path: Path) -> None:
        """Fetch into a temporary file, check its hash, and rename it when it is complete."""
        shown = f"{_NOUNS[kind]} {named.name}"
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            if self._storage is None:
                raise NotFound("stored object", key)
            self._storage.read_file(key, part)
            with part.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    message = f"the stored file of {shown} is damaged; upload it again"
                    is_lora = kind == "lora"
                    raise JobFailed(FailureCode.LORA_DAMAGED if is_lora else FailureCode.ADAPTER_DAMAGED, message)
            self._evict_for(part.stat().st_size)
            part.replace(path)
        except NotFound:
            message = f"the file of {shown} is no longer stored; upload it again"
            raise JobFailed(missing(kind), message) from None
        finally:
            part.unlink(missing_ok=True)

    def _evict_for(self, size_bytes: int) -> None:
        """Delete the least recently used files until a new one fits; one over the limit is kept alone."""
        by_last_use = sorted((file.stat().st_atime, file) for file in self._folder.glob("*.safetensors"))
        total_bytes = size_bytes + sum(file.stat().st_size for _, file in by_last_use)
        for _, file in by_last_use:
            if total_bytes <= self.limits.file_bytes:
                return
            total_bytes -= file.stat().st_size
            file.unlink(missing_ok=True)
