"""Routes that list, upload and delete textual inversions: those of the operator's catalogue and uploaded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi import Path as UrlPath
from pydantic import Field

from app.dependencies.access import LIST_LIMITED, RATE_LIMITED, VisibleCatalogueDep
from app.dependencies.bodies import LoraFileDep
from app.dependencies.services import ServicesDep, live_workers
from app.dependencies.submissions import IdempotentCallDep
from app.openapi.bodies import adapter_body
from app.openapi.routes import MAKING, problems
from app.routes.adapter_files import AdapterFiles, AdapterView, NameQuery, chosen, files_of, place_of, state_of
from app.services import Services
from contracts.catalogue.catalogue import Catalogue, TextualInversionSpec
from contracts.catalogue.families import FAMILIES
from contracts.errors import AdapterRefused, FieldProblem, InvalidRequest
from contracts.processes.workers import WorkerReport
from contracts.uploads.adapters import INVERSIONS, UploadedInversion
from contracts.views.lists import ListView
from contracts.weights.adapters.inversion_files import InversionFacts, read_inversion
from contracts.weights.adapters.inversion_models import find_family
from contracts.weights.formats.finite import check_finite
from contracts.weights.formats.safetensors import read_header

router = APIRouter(prefix="/v1", tags=["catalogue"])
InversionsDep = Annotated[AdapterFiles, Depends(files_of(INVERSIONS))]

_FAMILIES = [family.id for family in FAMILIES.values() if family.inversion_encoders]
_FAMILY = {
    "type": "string",
    "enum": _FAMILIES,
    "description": "Family that it was trained for. Default: the first one whose text encoders it fits; name "
    "`flux` for a file of CLIP-L vectors that is not for Stable Diffusion 1.",
}


class TextualInversionView(AdapterView):
    """One textual inversion. What is read from its file is null where the API cannot read the file."""

    id: str = Field(description="Value of `name` in a request's `textual_inversions`, and its word in prompts.")
    family: str = Field(description="Architecture of the models that it works with.")
    title: str = Field(description="Name for people; empty for uploaded ones.")
    trigger: str = Field(description="Another word for it in prompts; empty if there is none.")
    models: list[str] = Field(description="Ids of the models that it fits; empty: all models of its family.")
    vectors: int | None = Field(None, description="Tokens of a prompt that its word takes.")
    widths: dict[str, int] | None = Field(
        None, description="Width of its vectors for each text encoder: `clip_l`, and of SDXL also `clip_g`."
    )


class TextualInversionList(ListView[TextualInversionView]):
    """The textual inversions that the caller's requests may use."""


@router.get("/textual-inversions", dependencies=[LIST_LIMITED], responses=problems(429, 503))
def list_textual_inversions(catalogue: VisibleCatalogueDep, services: ServicesDep) -> TextualInversionList:
    """List the textual inversions (embeddings) that your requests may use."""
    workers = live_workers(services)
    rows = catalogue.textual_inversions
    return TextualInversionList(data=[_view(row, catalogue, workers, services) for row in rows])


@router.post(
    "/textual-inversions",
    status_code=201,
    openapi_extra=adapter_body("textual inversion", family=_FAMILY),
    responses={
        200: {"model": TextualInversionView, "description": "Uploaded before"},
        **problems(*MAKING),
    },
)
async def add_textual_inversion(
    file: LoraFileDep,
    services: ServicesDep,
    files: InversionsDep,
    call: IdempotentCallDep,
    response: Response,
    name: NameQuery = None,
    family: Annotated[
        str | None, Query(description=_FAMILY["description"], json_schema_extra={"enum": _FAMILIES})
    ] = None,
) -> TextualInversionView:
    """Upload a textual inversion: a `.safetensors` file as raw bytes or as the field `file` of a form.

    Its id, and the word that the file itself names, stand for it in prompts. One that is uploaded with an admin's
    key is visible to all; any other is visible to its owner only.
    """
    wanted = chosen(file, "family", family)
    if wanted is not None and wanted not in _FAMILIES:
        raise InvalidRequest([FieldProblem("family", f"{wanted[:64]!r} takes no textual inversions", _FAMILIES)])
    row: UploadedInversion = await files.add(
        file, name, call, response, lambda path: _check_file(path, wanted, services), ["family"]
    )
    return _view(row, services.catalogue, [], services)


@router.delete(
    "/textual-inversions/{id}",
    status_code=204,
    dependencies=[RATE_LIMITED],
    responses=problems(403, 404, 409, 429, 503),
)
def remove_textual_inversion(
    id: Annotated[str, UrlPath(description="Id of the textual inversion.")], files: InversionsDep
) -> None:
    """Delete an uploaded textual inversion. Jobs that were accepted with it still run with it."""
    files.remove(id)


def _check_file(path: Path, wanted: str | None, services: Services) -> dict[str, Any]:
    """Check all of a file; raises AdapterRefused."""
    facts = read_inversion(path)
    family, models = find_family(facts, services.agreed_rows.catalogue(services.catalogue), wanted)
    check_finite(path, read_header(path).tensors)
    return {"family": family, "models": models, "trigger": facts.word, "facts": facts}


def _view(
    row: TextualInversionSpec, catalogue: Catalogue, workers: list[WorkerReport], services: Services
) -> TextualInversionView:
    facts = row.facts if isinstance(row, UploadedInversion) else _read(row, catalogue, services)
    return TextualInversionView(
        id=row.id,
        family=row.family,
        title=row.title,
        trigger=row.trigger,
        models=list(row.models),
        vectors=None if facts is None else facts.vectors,
        widths=None if facts is None else dict(facts.widths),
        **state_of(row, "textual_inversion", workers),
    )


def _read(row: TextualInversionSpec, catalogue: Catalogue, services: Services) -> InversionFacts | None:
    place = place_of(row, catalogue, services.agreed_rows)
    try:
        return None if place is None else read_inversion(place)
    except (AdapterRefused, OSError):
        return None
