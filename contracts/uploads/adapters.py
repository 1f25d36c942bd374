"""Uploaded adapters and ControlNets: for each kind a Redis hash of rows for each owner, and a shared one.

A file is stored by its content, and kept while any row names it or any job uses it: a removed one is unavailable
to new jobs, but is kept for those accepted with it. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel
from redis import Redis

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, IpAdapterSpec, LoraSpec, TextualInversionSpec
from contracts.catalogue.rows.row import WeightRow
from contracts.errors import Conflict, NotFound, Unavailable
from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable, unix_seconds
from contracts.requests.entry_parameters import (
    ControlParameters,
    IpAdapterParameters,
    LoraParameters,
    TextualInversionParameters,
)
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from contracts.uploads.owner_bytes import ByteLimit
from contracts.uploads.retention import Retention
from contracts.weights.adapters.inversion_files import InversionFacts
from contracts.weights.adapters.ip_adapter_files import IpAdapterFacts
from contracts.weights.adapters.lora_files import AdapterFacts
from contracts.weights.controls.controlnet_files import ControlNetFacts

#: Maximum number of files of one kind per owner, to limit what they take of Redis.
_MAX_FILES = 1000
#: How long a file is kept while it is being written and registered.
_UPLOAD_SECONDS = 900


class Upload(BaseModel):
    """Fields that rows of uploaded files have in addition to those of the catalogue; `source` is the storage key.

    Attributes:
        owner: who can use it; None: everybody.
        sha256: of the file.
        created_at: Unix seconds on Redis' clock.
    """

    owner: str | None
    sha256: str
    size_bytes: int
    created_at: float


class UploadedLora(Upload, LoraSpec):
    """Row of an uploaded LoRA."""

    facts: AdapterFacts


class UploadedInversion(Upload, TextualInversionSpec):
    """Row of an uploaded textual inversion."""

    facts: InversionFacts


class UploadedIpAdapter(Upload, IpAdapterSpec):
    """Row of an uploaded IP-Adapter."""

    facts: IpAdapterFacts


class UploadedControlNet(Upload, ControlNetSpec):
    """Row of an uploaded ControlNet or T2I-Adapter: one file, which takes control images."""

    facts: ControlNetFacts


UploadedRow = TypeVar("UploadedRow", UploadedLora, UploadedInversion, UploadedIpAdapter, UploadedControlNet)


@dataclass(frozen=True)
class UploadKind(Generic[UploadedRow]):
    """A kind of file that clients upload.

    Attributes:
        noun: what it is called.
        table: of the catalogue that its rows are added to.
        default_id: beginning of the id of a file whose name cannot be one.
        row: class of its rows.
        shared_key, owner_key: of the hashes in Redis; the second is followed by the owner.
    """

    noun: str
    table: str
    default_id: str
    row: type[UploadedRow]
    shared_key: str
    owner_key: str

    def key(self, owner: str | None) -> str:
        """Return the key of an owner's hash, or of the shared one."""
        return self.shared_key if owner is None else self.owner_key + owner


LORAS = UploadKind("LoRA", "loras", "lora", UploadedLora, keys.LORAS, keys.OWNER_LORAS)
INVERSIONS = UploadKind(
    "textual inversion",
    "textual_inversions",
    "inversion",
    UploadedInversion,
    keys.INVERSIONS,
    keys.OWNER_INVERSIONS,
)
IP_ADAPTERS = UploadKind(
    "IP-Adapter", "ip_adapters", "ip-adapter", UploadedIpAdapter, keys.IP_ADAPTERS, keys.OWNER_IP_ADAPTERS
)
CONTROLNETS = UploadKind(
    "ControlNet", "controlnets", "controlnet", UploadedControlNet, keys.CONTROLNETS, keys.OWNER_CONTROLNETS
)
KINDS: tuple[UploadKind[Any], ...] = (LORAS, INVERSIONS, IP_ADAPTERS, CONTROLNETS)


class UploadRegistry:
    """All uploaded adapters and ControlNets."""

    def __init__(self, connection: Redis, storage: Storage, retention: Retention) -> None:
        """`connection` decodes responses."""
        self._connection = connection
        self._storage = storage
        self._retention = retention
        self._scripts = Scripts(connection)

    def add(
        self,
        kind: UploadKind[UploadedRow],
        id: str,
        owner: str | None,
        file: Path,
        sha256: str,
        fields: Mapping[str, Any],
        limit: ByteLimit | None = None,
    ) -> tuple[UploadedRow, bool]:
        """Store a file under a name; with the same content again, nothing changes.

        Args:
            fields: of its row, beside those of every upload.
            limit: whose bytes the file counts as, and how many these may be.

        Returns:
            Its row, and whether it is new.

        Raises:
            Conflict: the name is taken by another file of this kind, or the owner has too many.
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
            seconds = int(unix_seconds(self._connection))
            row = kind.row(
                id=id, source=key, owner=owner, sha256=sha256, size_bytes=size_bytes, created_at=seconds, **fields
            )
            text = row.model_dump_json()
            found = self._scripts.run(
                "register_lora", registry=kind.key(owner), name=id, input=key, row=text, max_loras=_MAX_FILES
            )
        if found == "kept":
            return row, True
        if found == "swept":
            raise Unavailable("the file was removed while it was being registered; send it again")
        if found == "full":
            raise Conflict(f"the limit of {_MAX_FILES} {kind.noun}s is reached; remove some first")
        known = kind.row.model_validate_json(found)
        if known.sha256 != sha256:
            message = f"the name {id!r} is taken by another {kind.noun}; remove it first, or use another name"
            raise Conflict(message)
        return known, False

    def remove(self, kind: UploadKind[Any], id: str, owner: str | None) -> None:
        """Remove a file; jobs that were already accepted keep it.

        Raises:
            NotFound: none of this kind has this name.
            Unavailable: Redis does not answer.
        """
        with redis_errors_are_unavailable():
            if not self._scripts.run("unregister_lora", registry=kind.key(owner), name=id):
                raise NotFound(kind.noun, id)

    def find_all(self, kind: UploadKind[UploadedRow], owner: str) -> list[UploadedRow]:
        """Read what an owner can use: their own first, then the shared ones, each sorted by name.

        Raises:
            Unavailable: Redis does not answer.
        """
        return self._read((kind,), owner)[kind.table]

    def extend(self, catalogue: Catalogue, owner: str, kinds: Sequence[UploadKind[Any]] = KINDS) -> Catalogue:
        """Add what an owner can use to the catalogue, whose own rows win if names are equal."""
        found = self._read(kinds, owner) if kinds else {}
        tables: dict[str, tuple[WeightRow, ...]] = {}
        for table, rows in found.items():
            own: tuple[WeightRow, ...] = getattr(catalogue, table)
            known = {row.id for row in own}
            more: dict[str, WeightRow] = {}
            for row in rows:
                if row.id not in known:
                    more.setdefault(row.id, row)
            tables[table] = (*own, *more.values())
        return catalogue.model_copy(update=tables)

    def _read(self, kinds: Sequence[UploadKind[Any]], owner: str) -> dict[str, list[Any]]:
        """The rows of each kind by its table, in one round trip."""
        with redis_errors_are_unavailable(), self._connection.pipeline(transaction=False) as pipe:
            for kind in kinds:
                for visibility in (owner, None):
                    pipe.hgetall(kind.key(visibility))
            hashes = iter(cast("list[dict[str, str]]", pipe.execute()))
        found: dict[str, list[Any]] = {}
        for kind in kinds:
            for rows in (next(hashes), next(hashes)):
                found.setdefault(kind.table, []).extend(
                    kind.row.model_validate_json(rows[id]) for id in sorted(rows)
                )
        return found


def resolve_uploads(parameters: JobParameters, catalogue: Catalogue) -> JobParameters:
    """Fill in the file of each upload that a job names, so that a later upload of the name does not matter."""
    changes: dict[str, Any] = {}
    if parameters.loras:
        loras = {row.id: row for row in catalogue.loras}
        changes["loras"] = tuple(_pin(lora, loras[lora.name]) for lora in parameters.loras)
    if parameters.textual_inversions:
        inversions = {row.id: row for row in catalogue.textual_inversions}
        changes["textual_inversions"] = tuple(
            _pin_inversion(one, inversions[one.name]) for one in parameters.textual_inversions
        )
    if parameters.ip_adapters:
        rows = {row.id: row for row in catalogue.ip_adapters}
        changes["ip_adapters"] = tuple(_pin_ip_adapter(one, rows[one.name]) for one in parameters.ip_adapters)
    if parameters.controls:
        nets = {row.id: row for row in catalogue.controlnets}
        changes["controls"] = tuple(_pin_control(one, nets[one.controlnet]) for one in parameters.controls)
    return parameters.model_copy(update=changes) if changes else parameters


def _pin(lora: LoraParameters, row: LoraSpec) -> LoraParameters:
    if not isinstance(row, UploadedLora):
        return lora
    return lora.model_copy(update={"key": row.source, "sha256": row.sha256, "values": row.facts.device_values})


def _pin_inversion(one: TextualInversionParameters, row: TextualInversionSpec) -> TextualInversionParameters:
    if not isinstance(row, UploadedInversion):
        return one
    return one.model_copy(update={"key": row.source, "sha256": row.sha256, "vectors": row.facts.vectors})


def _pin_ip_adapter(adapter: IpAdapterParameters, row: IpAdapterSpec) -> IpAdapterParameters:
    if not isinstance(row, UploadedIpAdapter):
        return adapter
    facts = {"values": row.facts.device_values, "image_encoder": Path(row.image_encoder).name}
    return adapter.model_copy(update={"key": row.source, "sha256": row.sha256, **facts})


def _pin_control(control: ControlParameters, row: ControlNetSpec) -> ControlParameters:
    if not isinstance(row, UploadedControlNet):
        return control
    facts = {"values": row.facts.values, "is_t2i_adapter": row.is_t2i_adapter}
    return control.model_copy(update={"key": row.source, "sha256": row.sha256, **facts})
