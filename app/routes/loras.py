"""LoRAs: the operator's own, and those that came over HTTP."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from app.dependencies.calls import LoraFile, TheRepeats
from app.dependencies.services import TheCatalogue, TheLoraRegistry, ThePrincipal, VisibleCatalogue
from app.openapi.routes import MAKING, lora_body, problems
from app.parsing.spooled_files import SpooledFile
from contracts.auth.api_keys import Scope
from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.errors import CatalogueError, Conflict, FieldProblem, Gone, InvalidRequest, NotFound
from contracts.job_view import ListView
from contracts.uploads.loras import UploadedLora
from contracts.weights.finite import check_finite
from contracts.weights.lora_files import AdapterFacts, AdapterRefused, describe, read_facts, read_tensors

router = APIRouter(prefix="/v1", tags=["catalogue"])

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ID_IN_WORDS = "a–z, 0–9, dot, dash and underscore; at most 64, the first a letter or a digit"


class LoraView(BaseModel):
    """One adapter. What is read from its file is null where the file is not on this machine."""

    id: str
    family: str
    title: str
    trigger: str
    models: list[str] = Field(description="models that it fits; none named: all of its family")
    layout: str | None = Field(None, description="whose names the file has: peft, kohya, diffusers or xlabs")
    ranks: list[int] | None = None
    dtype: str | None = None
    changes_text: bool | None = Field(None, description="whether it changes a text encoder")
    sha256: str | None = Field(None, description="of the file; uploaded ones only")
    size_bytes: int | None = None
    visible_to: str | None = Field(None, description="`all` or `owner`; uploaded ones only")
    created_at: AwareDatetime | None = None


@router.get("/loras", responses=problems(503))
def list_loras(catalogue: VisibleCatalogue) -> ListView[LoraView]:
    """All adapters that the caller may name."""
    return ListView(data=[_view(row, catalogue) for row in catalogue.loras])


@router.post(
    "/loras",
    status_code=201,
    openapi_extra=lora_body(),
    responses={
        200: {"model": LoraView, "description": "It was here"},
        **problems(*MAKING),
    },
)
def add_lora(
    file: LoraFile,
    caller: ThePrincipal,
    catalogue: TheCatalogue,
    shelf: TheLoraRegistry,
    repeats: TheRepeats,
    response: Response,
    name: Annotated[
        str | None,
        Query(
            description="its id in requests, where the body is the file itself",
            json_schema_extra={"pattern": f"^{_ID.pattern}$"},
        ),
    ] = None,
) -> LoraView:
    """Check and keep a `.safetensors` file, sent as raw bytes or as the field `file` of a form.

    An adapter that an admin uploads is everybody's; another one its owner's alone.
    """
    with file.path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    id = _name(file, name, sha256)
    response.status_code = 200

    def keep() -> UploadedLora:
        if id in {row.id for row in catalogue.loras}:
            raise Conflict(f"the operator has a LoRA {id!r}; take another name")
        facts = read_facts(file.path, catalogue)
        check_finite(file.path, read_tensors(file.path))
        owner = None if Scope.ADMIN in caller.scopes else caller.owner
        row, is_new = shelf.add(id, owner, file.path, sha256, facts)
        response.status_code = 201 if is_new else 200
        return row

    def find(id: str) -> UploadedLora:
        row = next((row for row in shelf.find_all(caller.owner) if row.id == id), None)
        if row is None:
            raise Gone("LoRA", id, caller.owner)
        return row

    body = f"{sha256} {id}".encode()
    return _view(repeats.make_once(body, response, keep, lambda row: row.id, find), catalogue)


@router.delete("/loras/{id}", status_code=204, responses=problems(403, 404, 409, 503))
def remove_lora(id: str, caller: ThePrincipal, catalogue: TheCatalogue, shelf: TheLoraRegistry) -> None:
    """Take an uploaded adapter away. Jobs that were accepted with it keep it."""
    if id in {row.id for row in catalogue.loras}:
        raise Conflict(f"{id} stands in the operator's catalogue file, and can be removed there only")
    row = next((row for row in shelf.find_all(caller.owner) if row.id == id), None)
    if row is None:
        raise NotFound("LoRA", id)
    caller.require(Scope.ADMIN if row.owner is None else Scope.GENERATE)
    shelf.remove(id, row.owner)


def _name(file: SpooledFile, wanted: str | None, sha256: str) -> str:
    """The client's, else one made of the file's."""
    unknown = sorted(file.fields.keys() - {"name"})
    if unknown:
        problems = [FieldProblem(field, "is no field of this form", ["file", "name"]) for field in unknown]
        raise InvalidRequest(problems)
    names = {given for given in (wanted, file.fields.get("name")) if given is not None}
    if len(names) > 1:
        raise InvalidRequest([FieldProblem("name", "the form and the address name it differently")])
    if not names:
        plain = re.sub(r"[^a-z0-9._-]+", "-", Path(file.filename).stem.lower()).strip("-._")[:64]
        return plain or f"lora-{sha256[:12]}"
    (id,) = names
    if _ID.fullmatch(id) is None:
        raise InvalidRequest([FieldProblem("name", f"{id[:64]!r} cannot be an id", _ID_IN_WORDS)])
    return id


def _view(row: LoraSpec, catalogue: Catalogue) -> LoraView:
    view = LoraView(id=row.id, family=row.family, title=row.title, trigger=row.trigger, models=list(row.models))
    facts = row.facts if isinstance(row, UploadedLora) else _read(row, catalogue)
    known: dict[str, Any] = {} if facts is None else facts.model_dump(exclude={"family", "models", "values"})
    if isinstance(row, UploadedLora):
        known |= {
            "sha256": row.sha256,
            "size_bytes": row.size_bytes,
            "visible_to": "all" if row.owner is None else "owner",
            "created_at": row.created_at,
        }
    return LoraView.model_validate(view.model_dump() | known)


def _read(row: LoraSpec, catalogue: Catalogue) -> AdapterFacts | None:
    """What the file says, where it is on this machine and can be read."""
    try:
        place = catalogue.locate(row.source)
        return describe(place, row.family) if isinstance(place, Path) and place.is_file() else None
    except (AdapterRefused, CatalogueError, OSError):
        return None
