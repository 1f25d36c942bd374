"""Routes that list, upload and delete LoRAs: those of the operator's catalogue and uploaded ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi import Path as UrlPath
from fastapi.concurrency import run_in_threadpool
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.auth import Principal
from app.dependencies.access import LIST_LIMITED, RATE_LIMITED, PrincipalDep, VisibleCatalogueDep
from app.dependencies.bodies import LoraFileDep
from app.dependencies.queries import null_is_absent
from app.dependencies.services import ServicesDep, live_workers
from app.dependencies.submissions import IdempotentCallDep
from app.openapi.routes import MAKING, lora_body, problems
from app.parsing.spooled_files import SpooledFile
from app.services import Services
from contracts.auth.api_keys import Scope
from contracts.catalogue.cached import find_cached
from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.errors import AdapterRefused, CatalogueError, Conflict, FieldProblem, Gone, InvalidRequest, NotFound
from contracts.hub_revisions import AgreedRows
from contracts.job_view import ListView
from contracts.processes.preparations import Preparation
from contracts.processes.workers import WorkerReport, is_ready, preparation_of
from contracts.uploads.loras import LoraRegistry, UploadedLora
from contracts.uploads.owner_bytes import ByteLimit
from contracts.weights.finite import check_finite
from contracts.weights.lora_files import AdapterFacts, describe, read_facts, read_lora

router = APIRouter(prefix="/v1", tags=["catalogue"])

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
#: What programs write for a value that they do not have: as ids they would be mistakes.
_NO_VALUES = frozenset({"null", "none", "nil", "undefined", "nan", "true", "false"})
_ID_RULE = (
    "1–64 of a–z, 0–9, `.`, `-` and `_`, starting with a letter or a digit; not "
    f"{', '.join(sorted(_NO_VALUES - {'null'}))}"
)


class LoraView(BaseModel):
    """One LoRA. What is read from its file is null where the API cannot read the file."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: str = Field(description="Value of `name` in a request's `loras`.")
    family: str = Field(description="Architecture of the models that it works with.")
    title: str = Field(description="Name for people; empty for uploaded LoRAs.")
    trigger: str = Field(description="Words that call up its effect in a prompt; empty where none are known.")
    models: list[str] = Field(description="Ids of the models that it fits; empty: all models of its family.")
    layout: str | None = Field(
        None,
        description="Naming scheme of the file's tensors: `peft`, `kohya`, `comfyui`, `diffusers` or `xlabs`; "
        "null if the API cannot read the file.",
    )
    ranks: list[int] | None = Field(
        None, description="Ranks that occur in it, ascending; null if the API cannot read the file."
    )
    dtype: str | None = Field(
        None,
        description="Data type of most tensors, as safetensors names it; null if the API cannot read the file.",
    )
    changes_text: bool | None = Field(
        None, description="Whether it has weights for a text encoder; null if the API cannot read the file."
    )
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
        description="Whether any worker has its file, so that a job waits for no download; always true of an "
        "uploaded one.",
    )
    preparing: Preparation | None = Field(
        None, description="How a worker's download of it goes on; null where none is needed or under way."
    )


class LoraList(ListView[LoraView]):
    """The LoRAs that the caller's requests may use."""


@router.get("/loras", dependencies=[LIST_LIMITED], responses=problems(429, 503))
def list_loras(catalogue: VisibleCatalogueDep, services: ServicesDep) -> LoraList:
    """List the LoRAs that your requests may use."""
    workers = live_workers(services)
    return LoraList(data=[_view(row, catalogue, workers, services) for row in catalogue.loras])


@router.post(
    "/loras",
    status_code=201,
    openapi_extra=lora_body(),
    responses={
        200: {"model": LoraView, "description": "Uploaded before"},
        **problems(*MAKING),
    },
)
async def add_lora(
    file: LoraFileDep,
    services: ServicesDep,
    principal: PrincipalDep,
    call: IdempotentCallDep,
    response: Response,
    name: Annotated[
        str | None,
        Query(
            description="Id of the LoRA in requests, where the body is the file itself: "
            f"{_ID_RULE}. Default: made from the file name.",
            json_schema_extra={"pattern": f"^{_ID.pattern}$"},
        ),
    ] = None,
) -> LoraView:
    """Upload a LoRA: a `.safetensors` file as raw bytes or as the field `file` of a form.

    A LoRA uploaded with an admin's key is visible to all; any other is visible to its owner only.
    """
    catalogue = services.catalogue
    sha256 = await run_in_threadpool(_hash, file.path)
    id = _id_of(file, name, sha256)
    _require_free(id, catalogue)
    facts = await services.file_checks.run(principal.owner, lambda: _check_file(file.path, services))
    response.status_code = 200

    def create(_: object) -> UploadedLora:
        services.disk_space.require(file.path.stat().st_size)
        owner = None if Scope.ADMIN in principal.scopes else principal.owner
        limit = ByteLimit(principal.owner, services.settings.max_owner_bytes)
        lora, is_new = services.owner_bytes.run(
            principal.owner, lambda: services.loras.add(id, owner, file.path, sha256, facts, limit)
        )
        response.status_code = 201 if is_new else 200
        return lora

    def find(id: str) -> UploadedLora:
        lora = _find_uploaded(id, services.loras, principal)
        if lora is None:
            raise Gone("LoRA", id, principal.owner)
        return lora

    body = f"{sha256} {id}".encode()
    lora = await run_in_threadpool(lambda: call.run(body, response, create, find, lambda lora: lora.id))
    return _view(lora, catalogue, [], services)


@router.delete(
    "/loras/{id}", status_code=204, dependencies=[RATE_LIMITED], responses=problems(403, 404, 409, 429, 503)
)
def remove_lora(
    id: Annotated[str, UrlPath(description="Id of the LoRA.")], services: ServicesDep, principal: PrincipalDep
) -> None:
    """Delete an uploaded LoRA. Jobs that were accepted with it still run with it."""
    if _is_built_in(id, services.catalogue):
        raise Conflict(f"{id} is in the operator's catalogue file, and can only be removed there")
    lora = _find_uploaded(id, services.loras, principal)
    if lora is None:
        raise NotFound("LoRA", id)
    principal.require(Scope.ADMIN if lora.owner is None else Scope.GENERATE)
    services.loras.remove(id, lora.owner)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_file(path: Path, services: Services) -> AdapterFacts:
    """Check all of a file; raises AdapterRefused."""
    contents = read_lora(path)
    facts = read_facts(contents, services.agreed_rows.catalogue(services.catalogue))
    check_finite(path, contents.tensors)
    return facts


def _require_free(id: str, catalogue: Catalogue) -> None:
    """Refuse an id of the operator's catalogue: people would take the LoRA for what the operator offers."""
    for kind, rows in (
        ("LoRA", catalogue.loras),
        ("model", catalogue.models),
        ("ControlNet", catalogue.controlnets),
    ):
        if any(row.id == id for row in rows):
            raise Conflict(f"the operator's catalogue has a {kind} {id!r}; choose another name")


def _is_built_in(id: str, catalogue: Catalogue) -> bool:
    return any(lora.id == id for lora in catalogue.loras)


def _find_uploaded(id: str, loras: LoraRegistry, principal: Principal) -> UploadedLora | None:
    return next((lora for lora in loras.find_all(principal.owner) if lora.id == id), None)


def _id_of(file: SpooledFile, name: str | None, sha256: str) -> str:
    """The id that the client chose; without one, an id made from the name of the file."""
    unknown = sorted(file.fields.keys() - {"name"})
    if unknown:
        problems = [FieldProblem(field, "unknown field", ["file", "name"]) for field in unknown]
        raise InvalidRequest(problems)
    given = (null_is_absent(name), null_is_absent(file.fields.get("name")))
    names = {text for text in given if text is not None}
    if len(names) > 1:
        raise InvalidRequest([FieldProblem("name", "the form and the query have different names; send one")])
    if not names:
        plain = re.sub(r"[^a-z0-9._-]+", "-", Path(file.filename).stem.lower()).strip("-._")[:64]
        return plain if plain and plain not in _NO_VALUES else f"lora-{sha256[:12]}"
    (id,) = names
    if _ID.fullmatch(id) is None or id in _NO_VALUES:
        raise InvalidRequest([FieldProblem("name", f"{id[:64]!r} is not a valid id", _ID_RULE)])
    return id


def _view(row: LoraSpec, catalogue: Catalogue, workers: Sequence[WorkerReport], services: Services) -> LoraView:
    view = LoraView(id=row.id, family=row.family, title=row.title, trigger=row.trigger, models=list(row.models))
    facts = row.facts if isinstance(row, UploadedLora) else _read(row, catalogue, services.agreed_rows)
    known: dict[str, Any] = {} if facts is None else facts.model_dump(exclude={"family", "models", "values"})
    if isinstance(row, UploadedLora):
        known |= {
            "sha256": row.sha256,
            "size_bytes": row.size_bytes,
            "visible_to": "all" if row.owner is None else "owner",
            "created_at": row.created_at,
        }
    else:  # an uploaded file is in the service's storage, where each worker reads it
        name = f"lora:{row.id}"
        known |= {"ready": is_ready(name, workers), "preparing": preparation_of(name, workers)}
    return LoraView.model_validate(view.model_dump() | known)


def _read(row: LoraSpec, catalogue: Catalogue, agreed_rows: AgreedRows) -> AdapterFacts | None:
    """Facts from the file; None where it is neither on this machine nor in the hub's cache, or cannot be read."""
    try:
        row = agreed_rows.row(catalogue, row)
        cached = find_cached(catalogue, row)
        place = catalogue.place(row) if cached is None else cached.paths[0]
        if not isinstance(place, Path) or not place.is_file():
            return None
        state = place.stat()
        return _facts_of(place, row.family, state.st_mtime_ns, state.st_size)
    except (CatalogueError, OSError):
        return None


@lru_cache(maxsize=4096)
def _facts_of(path: Path, family: str, changed_at_ns: int, size_bytes: int) -> AdapterFacts | None:
    """Facts from a file, read again only where it has changed: a list of LoRAs costs no header of each."""
    del changed_at_ns, size_bytes
    try:
        return describe(read_lora(path), family)
    except (AdapterRefused, OSError):
        return None
