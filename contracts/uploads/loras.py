"""Adapters that clients uploaded: a Redis hash of rows for each owner, and one for everybody. Knows no HTTP.

The file lies in the storage by its content, held by every row that names it and by every job that uses it: an
adapter that is taken away is gone for new jobs, and stays for those that were accepted with it.
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
from contracts.uploads.retention import Retention
from contracts.weights.lora_files import AdapterFacts

#: Adapters of one owner, so that none fills Redis with them.
_MAX_LORAS = 1000
#: How long a file is held while it is written and entered.
_UPLOAD_SECONDS = 900


class UploadedLora(LoraSpec):
    """An adapter's row that came over HTTP; `source` is its storage key.

    Attributes:
        owner: who sees it; None: everybody.
        sha256: of the file.
        created_at: Unix seconds on Redis' clock.
    """

    owner: str | None
    sha256: str
    size_bytes: int
    created_at: float
    facts: AdapterFacts


class LoraRegistry:
    """All uploaded adapters."""

    def __init__(self, connection: Redis, storage: Storage, retention: Retention) -> None:
        """`connection` decodes responses."""
        self._connection = connection
        self._storage = storage
        self._retention = retention
        self._scripts = Scripts(connection)

    def add(
        self, id: str, owner: str | None, file: Path, sha256: str, facts: AdapterFacts
    ) -> tuple[UploadedLora, bool]:
        """Keep an adapter's file under a name; once more with the same content, it is there already.

        Returns:
            Its row, and whether it is new.

        Raises:
            Conflict: the name is another adapter's, or the owner has too many.
            Unavailable: Redis or the storage does not answer.
        """
        key = self._retention.retain(sha256, _UPLOAD_SECONDS, suffix="safetensors")
        if not self._storage.exists(key):
            self._storage.write_file(key, file)
        with redis_errors_are_unavailable():
            seconds, _ = self._connection.time()
            row = UploadedLora(
                id=id, family=facts.family, source=key, models=facts.models, owner=owner, sha256=sha256,
                size_bytes=file.stat().st_size, created_at=seconds, facts=facts,
            )  # fmt: skip
            text = row.model_dump_json()
            found = self._scripts.run(
                "register_lora", registry=_key(owner), name=id, input=key, row=text, max_loras=_MAX_LORAS
            )
        if found == "kept":
            return row, True
        if found == "swept":
            raise Unavailable("the file was swept while it was being entered; send it again")
        if found == "full":
            raise Conflict(f"there are {_MAX_LORAS} adapters already; remove some first")
        known = UploadedLora.model_validate_json(found)
        if known.sha256 != sha256:
            raise Conflict(f"there is another LoRA {id!r}; remove it first, or take another name")
        return known, False

    def remove(self, id: str, owner: str | None) -> None:
        """Take an adapter away; accepted jobs keep it.

        Raises:
            NotFound: there is none under this name.
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            if not self._scripts.run("unregister_lora", registry=_key(owner), name=id):
                raise NotFound("LoRA", id)

    def find_all(self, owner: str) -> list[UploadedLora]:
        """What an owner sees, the own ones first, each by name.

        Raises:
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable(), self._connection.pipeline(transaction=False) as pipe:
            for shelf in (owner, None):
                pipe.hgetall(_key(shelf))
            shelves = cast("list[dict[str, str]]", pipe.execute())
        return [UploadedLora.model_validate_json(rows[id]) for rows in shelves for id in sorted(rows)]

    def extend(self, catalogue: Catalogue, owner: str) -> Catalogue:
        """The catalogue with what an owner sees beside it; where names are equal, the catalogue's row counts."""
        known = {row.id for row in catalogue.loras}
        more: dict[str, LoraSpec] = {}
        for row in self.find_all(owner):
            if row.id not in known:
                more.setdefault(row.id, row)
        return catalogue.model_copy(update={"loras": (*catalogue.loras, *more.values())})


def resolve_uploads(parameters: JobParameters, catalogue: Catalogue) -> JobParameters:
    """The same, with the content of every uploaded adapter named: whatever its name will mean by then."""
    rows = {row.id: row for row in catalogue.loras}
    loras = (_pin(lora, rows[lora.name]) for lora in parameters.loras)
    return parameters.model_copy(update={"loras": tuple(loras)})


def _pin(lora: LoraParameters, row: LoraSpec) -> LoraParameters:
    if not isinstance(row, UploadedLora):
        return lora
    return lora.model_copy(update={"key": row.source, "sha256": row.sha256, "values": row.facts.values})


def _key(owner: str | None) -> str:
    return keys.LORAS if owner is None else keys.OWNER_LORAS + owner
