"""Uploaded LoRAs: a Redis hash of rows for each owner, and one for shared LoRAs. Knows no HTTP.

A file is stored by its content, and kept while any row names it or any job uses it: a removed LoRA is unavailable
to new jobs, but is kept for those accepted with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from redis import Redis

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.errors import Conflict, NotFound, Unavailable
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable
from contracts.requests.parameters import JobParameters, LoraParameters
from contracts.storage import Storage
from contracts.uploads.owner_bytes import ByteLimit
from contracts.uploads.retention import Retention
from contracts.weights.lora_files import AdapterFacts

#: Maximum number of LoRAs per owner, to limit what they take of Redis.
_MAX_LORAS = 1000
#: How long a file is kept while it is being written and registered.
_UPLOAD_SECONDS = 900


class UploadedLora(LoraSpec):
    """Row of an uploaded LoRA; `source` is its storage key.

    Attributes:
        owner: who can use it; None: everybody.
        sha256: of the file.
        created_at: Unix seconds on Redis' clock.
    """

    owner: str | None
    sha256: str
    size_bytes: int
    created_at: float
    facts: AdapterFacts


class LoraRegistry:
    """All uploaded LoRAs."""

    def __init__(self, connection: Redis, storage: Storage, retention: Retention) -> None:
        """`connection` decodes responses."""
        self._connection = connection
        self._storage = storage
        self._retention = retention
        self._scripts = Scripts(connection)

    def add(
        self,
        id: str,
        owner: str | None,
        file: Path,
        sha256: str,
        facts: AdapterFacts,
        limit: ByteLimit | None = None,
    ) -> tuple[UploadedLora, bool]:
        """Store a LoRA's file under a name; with the same content again, nothing changes.

        Args:
            limit: whose bytes the file counts as, and how many these may be.

        Returns:
            Its row, and whether it is new.

        Raises:
            Conflict: the name is taken by another LoRA, or the owner has too many.
            QuotaExceeded: the file would exceed the limit.
            Unavailable: Redis or the storage does not answer.
        """
        size_bytes = file.stat().st_size
        key = self._retention.retain(
            sha256, _UPLOAD_SECONDS, suffix="safetensors", size_bytes=size_bytes, limit=limit
        )
        if not self._storage.exists(key):
            self._storage.write_file(key, file)
        with redis_errors_are_unavailable():
            seconds, _ = self._connection.time()
            row = UploadedLora(
                id=id, family=facts.family, source=key, models=facts.models, owner=owner, sha256=sha256,
                size_bytes=size_bytes, created_at=seconds, facts=facts,
            )  # fmt: skip
            text = row.model_dump_json()
            found = self._scripts.run(
                "register_lora", registry=_key(owner), name=id, input=key, row=text, max_loras=_MAX_LORAS
            )
        if found == "kept":
            return row, True
        if found == "swept":
            raise Unavailable("the file was removed while it was being registered; send it again")
        if found == "full":
            raise Conflict(f"the limit of {_MAX_LORAS} LoRAs is reached; remove some first")
        known = UploadedLora.model_validate_json(found)
        if known.sha256 != sha256:
            raise Conflict(f"the name {id!r} is taken by another LoRA; remove it first, or use another name")
        return known, False

    def remove(self, id: str, owner: str | None) -> None:
        """Remove a LoRA; jobs that were already accepted keep it.

        Raises:
            NotFound: no LoRA has this name.
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            if not self._scripts.run("unregister_lora", registry=_key(owner), name=id):
                raise NotFound("LoRA", id)

    def find_all(self, owner: str) -> list[UploadedLora]:
        """Read the LoRAs that an owner can use: their own first, then the shared ones, each sorted by name.

        Raises:
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable(), self._connection.pipeline(transaction=False) as pipe:
            for visibility in (owner, None):
                pipe.hgetall(_key(visibility))
            hashes = cast("list[dict[str, str]]", pipe.execute())
        return [UploadedLora.model_validate_json(rows[id]) for rows in hashes for id in sorted(rows)]

    def extend(self, catalogue: Catalogue, owner: str) -> Catalogue:
        """Add the LoRAs that an owner can use to the catalogue, whose own rows win if names are equal."""
        known = {row.id for row in catalogue.loras}
        more: dict[str, LoraSpec] = {}
        for row in self.find_all(owner):
            if row.id not in known:
                more.setdefault(row.id, row)
        return catalogue.model_copy(update={"loras": (*catalogue.loras, *more.values())})


def resolve_uploads(parameters: JobParameters, catalogue: Catalogue) -> JobParameters:
    """Fill in the file of each uploaded LoRA, so that a later upload of the name does not matter."""
    if not parameters.loras:
        return parameters
    rows = {row.id: row for row in catalogue.loras}
    loras = (_pin(lora, rows[lora.name]) for lora in parameters.loras)
    return parameters.model_copy(update={"loras": tuple(loras)})


def _pin(lora: LoraParameters, row: LoraSpec) -> LoraParameters:
    if not isinstance(row, UploadedLora):
        return lora
    return lora.model_copy(update={"key": row.source, "sha256": row.sha256, "values": row.facts.values})


def _key(owner: str | None) -> str:
    return keys.LORAS if owner is None else keys.OWNER_LORAS + owner
