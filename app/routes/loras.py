"""Routes that list, upload and delete LoRAs: those of the operator's catalogue and uploaded ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi import Path as UrlPath
from pydantic import Field

from app.dependencies.access import LIST_LIMITED, RATE_LIMITED, VisibleCatalogueDep
from app.dependencies.bodies import LoraFileDep
from app.dependencies.services import ServicesDep, live_workers
from app.dependencies.submissions import IdempotentCallDep
from app.openapi.bodies import adapter_body
from app.openapi.routes import MAKING, problems
from app.routes.adapter_files import AdapterFiles, AdapterView, NameQuery, files_of, place_of, state_of
from app.services import Services
from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.hub_revisions import AgreedRows
from contracts.processes.workers import WorkerReport
from contracts.uploads.adapters import LORAS, UploadedLora
from contracts.views.lists import ListView
from contracts.weights.adapters.lora_files import AdapterFacts, facts_in, read_lora
from contracts.weights.adapters.lora_models import read_facts
from contracts.weights.formats.finite import check_finite

router = APIRouter(prefix="/v1", tags=["catalogue"])
LorasDep = Annotated[AdapterFiles, Depends(files_of(LORAS))]


class LoraView(AdapterView):
    """One LoRA. What is read from its file is null where the API cannot read the file."""

    id: str = Field(description="Value of `name` in a request's `loras`.")
    family: str = Field(description="Architecture of the models that it works with.")
    title: str = Field(description="Name for people; empty for uploaded LoRAs.")
    trigger: str = Field(description="Words that trigger its effect in a prompt; empty if none are known.")
    models: list[str] = Field(description="Ids of the models that it fits; empty: all models of its family.")
    layout: str | None = Field(
        None,
        description="Naming scheme of the file's tensors: `peft`, `kohya`, `comfyui`, `diffusers`, `xlabs`, "
        "`lycoris` or `hypernetwork`; null if the API cannot read the file.",
    )
    kinds: list[str] | None = Field(
        None,
        description="Kinds of its layers: `lora`, `dora`, `loha`, `lokr`, `full` (full-weight "
        "differences), `oft`, `ia3`, or `hypernetwork`; null if the API cannot read the file.",
    )
    ranks: list[int] | None = Field(
        None,
        description="Ranks that occur in it, ascending, empty for kinds that have none; null if the API cannot "
        "read the file.",
    )
    dtype: str | None = Field(
        None,
        description="Data type of most tensors, as safetensors names it; null if the API cannot read the file.",
    )
    changes_text: bool | None = Field(
        None, description="Whether it has weights for a text encoder; null if the API cannot read the file."
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
    openapi_extra=adapter_body("LoRA"),
    responses={
        200: {"model": LoraView, "description": "Uploaded before"},
        **problems(*MAKING),
    },
)
async def add_lora(
    file: LoraFileDep,
    services: ServicesDep,
    files: LorasDep,
    call: IdempotentCallDep,
    response: Response,
    name: NameQuery = None,
) -> LoraView:
    """Upload a LoRA, or one of its relatives: a `.safetensors` file as raw bytes or as the field `file` of a form.

    The relatives are LoHa, LoKr, DoRA, full differences, OFT and IA3; requests name all of them in `loras`.

    A LoRA uploaded with an admin's key is visible to all; any other is visible to its owner only.
    """
    lora: UploadedLora = await files.add(file, name, call, response, lambda path: _check_file(path, services))
    return _view(lora, services.catalogue, [], services)


@router.delete(
    "/loras/{id}", status_code=204, dependencies=[RATE_LIMITED], responses=problems(403, 404, 409, 429, 503)
)
def remove_lora(id: Annotated[str, UrlPath(description="Id of the LoRA.")], files: LorasDep) -> None:
    """Delete an uploaded LoRA. Jobs that were accepted with it still run with it."""
    files.remove(id)


def _check_file(path: Path, services: Services) -> dict[str, Any]:
    """Check all of a file; raises AdapterRefused."""
    contents = read_lora(path)
    facts = read_facts(contents, services.agreed_rows.catalogue(services.catalogue))
    check_finite(path, contents.tensors)
    return {"family": facts.family, "models": facts.models, "facts": facts}


def _view(row: LoraSpec, catalogue: Catalogue, workers: Sequence[WorkerReport], services: Services) -> LoraView:
    view = LoraView(id=row.id, family=row.family, title=row.title, trigger=row.trigger, models=list(row.models))
    facts = facts_of_lora(row, catalogue, services.agreed_rows)
    known: dict[str, Any] = (
        {} if facts is None else facts.model_dump(exclude={"family", "models", "values", "workspace_values"})
    )
    known |= state_of(row, "lora", workers)
    return LoraView.model_validate(view.model_dump() | known)


def facts_of_lora(row: LoraSpec, catalogue: Catalogue, agreed_rows: AgreedRows) -> AdapterFacts | None:
    """Facts from the file; None where it is neither on this machine nor in the hub's cache, or cannot be read."""
    if isinstance(row, UploadedLora):
        return row.facts
    place = place_of(row, catalogue, agreed_rows)
    if place is None:
        return None
    return facts_in(place, row.family)
