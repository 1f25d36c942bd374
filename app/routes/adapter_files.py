"""The common part of the routes of uploaded adapters and ControlNets: ids, upload, removal, and views."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.auth import Principal
from app.dependencies.access import PrincipalDep
from app.dependencies.queries import null_is_absent
from app.dependencies.services import ServicesDep
from app.dependencies.submissions import IdempotentCallDep
from app.parsing.spooled_files import SpooledFile
from app.services import Services
from contracts.auth.api_keys import Scope
from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.rows.row import WeightRow
from contracts.errors import CatalogueError, Conflict, FieldProblem, Gone, InvalidRequest, NotFound
from contracts.hub_revisions import AgreedRows
from contracts.jobs.preparations import Preparation
from contracts.processes.workers import WorkerReport, is_ready, preparation_of
from contracts.uploads.adapters import Upload, UploadKind
from contracts.uploads.owner_bytes import ByteLimit

ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
#: What programs write for a value that they do not have: as ids they would be mistakes.
_NO_VALUES = frozenset({"null", "none", "nil", "undefined", "nan", "true", "false"})
ID_RULE = (
    "1–64 of a–z, 0–9, `.`, `-` and `_`, starting with a letter or a digit; not "
    f"{', '.join(sorted(_NO_VALUES - {'null'}))}"
)

#: The id of a file whose body is the file itself.
NameQuery = Annotated[
    str | None,
    Query(
        description="Id of the file in requests, where the body is the file itself: "
        f"{ID_RULE}. Default: made from the file name.",
        json_schema_extra={"pattern": f"^{ID.pattern}$"},
    ),
]


class AdapterView(BaseModel):
    """The fields that views of all kinds have."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    sha256: str | None = Field(
        None, description="SHA-256 of the file, in hexadecimal; null unless it was uploaded."
    )
    size_bytes: int | None = Field(None, description="Size of the file in bytes; null unless it was uploaded.")
    visible_to: str | None = Field(
        None, description="`all`, or `owner`: only the owner who uploaded it; null unless it was uploaded."
    )
    created_at: AwareDatetime | None = Field(None, description="When it was uploaded; null unless it was.")
    ready: bool = Field(
        True,
        description="Whether a worker has its file, and jobs wait for no download; true for an uploaded one.",
    )
    preparing: Preparation | None = Field(
        None, description="Progress of a worker's download of it; null if none is needed or running."
    )


def state_of(row: WeightRow, kind: str, workers: Sequence[WorkerReport]) -> dict[str, Any]:
    """The fields of an `AdapterView`; `kind` is as in the names of `JobParameters.needs`."""
    if isinstance(row, Upload):
        return {
            "sha256": row.sha256,
            "size_bytes": row.size_bytes,
            "visible_to": "all" if row.owner is None else "owner",
            "created_at": row.created_at,
        }
    # An uploaded file is in the service's storage, where each worker reads it.
    name = f"{kind}:{row.id}"
    return {"ready": is_ready(name, workers), "preparing": preparation_of(name, workers)}


@dataclass(frozen=True)
class AdapterFiles:
    """The uploaded files of one kind, for one call.

    Attributes:
        kind: of file.
    """

    kind: UploadKind[Any]
    services: Services
    principal: Principal

    async def add(
        self,
        file: SpooledFile,
        name: str | None,
        call: IdempotentCallDep,
        response: Response,
        check: Callable[[Path], Mapping[str, Any]],
        fields: Collection[str] = (),
    ) -> Any:
        """Upload a file; returns its row.

        Args:
            check: checks all of a file, and returns the fields of its row.
            fields: that a form may have beside `file` and `name`.
        """
        services, principal, kind = self.services, self.principal, self.kind
        sha256 = await run_in_threadpool(_hash, file.path)
        id = _id_of(file, name, sha256, kind, fields)
        _require_free(id, services.catalogue)
        found = await services.file_checks.run(principal.owner, lambda: check(file.path))
        response.status_code = 200

        def create(_: object) -> Any:
            services.disk_space.require(file.path.stat().st_size)
            owner = None if Scope.ADMIN in principal.scopes else principal.owner
            limit = ByteLimit(principal.owner, services.settings.max_owner_bytes)
            row, is_new = services.owner_bytes.run(
                principal.owner,
                lambda: services.adapters.add(kind, id, owner, file.path, sha256, found, limit),
            )
            response.status_code = 201 if is_new else 200
            return row

        def find(id: str) -> Any:
            row = self._find(id)
            if row is None:
                raise Gone(kind.noun, id, principal.owner)
            return row

        body = f"{sha256} {id}".encode()
        return await run_in_threadpool(lambda: call.run(body, response, create, find, lambda row: row.id))

    def remove(self, id: str) -> None:
        """Remove an uploaded file; raises Conflict for a row of the operator's, and NotFound."""
        if any(row.id == id for row in getattr(self.services.catalogue, self.kind.table)):
            raise Conflict(f"{id} is in the operator's catalogue file, and can only be removed there")
        row = self._find(id)
        if row is None:
            raise NotFound(self.kind.noun, id)
        self.principal.require(Scope.ADMIN if row.owner is None else Scope.GENERATE)
        self.services.adapters.remove(self.kind, id, row.owner)

    def _find(self, id: str) -> Any:
        rows = self.services.adapters.find_all(self.kind, self.principal.owner)
        return next((row for row in rows if row.id == id), None)


def files_of(kind: UploadKind[Any]) -> Callable[..., AdapterFiles]:
    """Return what provides a route with the uploaded files of a kind."""

    def provide(services: ServicesDep, principal: PrincipalDep) -> AdapterFiles:
        return AdapterFiles(kind, services, principal)

    return provide


def place_of(row: LoraSpec, catalogue: Catalogue, agreed_rows: AgreedRows) -> Path | None:
    """The file of a row of the catalogue; None where it is neither on this machine nor in the hub's cache."""
    try:
        row = agreed_rows.row(catalogue, row)
        cached = find_cached(catalogue, row)
        place = catalogue.place(row) if cached is None else cached.paths[0]
    except (CatalogueError, OSError):
        return None
    return place if isinstance(place, Path) and place.is_file() else None


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require_free(id: str, catalogue: Catalogue) -> None:
    """Refuse an id of the operator's catalogue: people would take the file for what the operator offers."""
    for kind, rows in (
        ("LoRA", catalogue.loras),
        ("model", catalogue.models),
        ("ControlNet", catalogue.controlnets),
        ("IP-Adapter", catalogue.ip_adapters),
        ("textual inversion", catalogue.textual_inversions),
    ):
        if any(row.id == id for row in rows):
            raise Conflict(f"the operator's catalogue has a {kind} {id!r}; choose another name")


def _id_of(
    file: SpooledFile, name: str | None, sha256: str, kind: UploadKind[Any], fields: Collection[str]
) -> str:
    """The id that the client chose; without one, an id made from the name of the file."""
    known = ["file", "name", *fields]
    unknown = sorted(file.fields.keys() - {*known})
    if unknown:
        raise InvalidRequest([FieldProblem(field, "unknown field", known) for field in unknown])
    id = chosen(file, "name", name)
    if id is None:
        plain = re.sub(r"[^a-z0-9._-]+", "-", Path(file.filename).stem.lower()).strip("-._")[:64]
        return plain if plain and plain not in _NO_VALUES else f"{kind.default_id}-{sha256[:12]}"
    if ID.fullmatch(id) is None or id in _NO_VALUES:
        raise InvalidRequest([FieldProblem("name", f"{id[:64]!r} is not a valid id", ID_RULE)])
    return id


def chosen(file: SpooledFile, field: str, query: str | None) -> str | None:
    """A value that a client gives in the form or in the query; raises InvalidRequest where they differ."""
    given = (null_is_absent(query), null_is_absent(file.fields.get(field)))
    values = {text for text in given if text is not None}
    if len(values) > 1:
        message = f"the form says {given[1]!r:.64} and the query {given[0]!r:.64}; send one of them"
        raise InvalidRequest([FieldProblem(field, message)])
    return next(iter(values), None)
