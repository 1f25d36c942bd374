"""Routes that list, upload and delete IP-Adapters: those of the operator's catalogue and uploaded ones."""

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
from app.routes.adapter_files import AdapterFiles, AdapterView, NameQuery, chosen, files_of, state_of
from app.services import Services
from contracts.catalogue.catalogue import Catalogue, IpAdapterSpec
from contracts.processes.workers import WorkerReport
from contracts.uploads.adapters import IP_ADAPTERS, UploadedIpAdapter
from contracts.views.lists import ListView
from contracts.weights.adapters.ip_adapter_files import read_ip_adapter
from contracts.weights.adapters.ip_adapter_models import find_image_encoder, find_models
from contracts.weights.adapters.ip_adapter_rows import find_ip_adapter_facts
from contracts.weights.formats.finite import check_finite
from contracts.weights.formats.safetensors import read_header

router = APIRouter(prefix="/v1", tags=["catalogue"])
IpAdaptersDep = Annotated[AdapterFiles, Depends(files_of(IP_ADAPTERS))]

_ENCODER = (
    "Name of the operator's image encoder that it was trained with, the last part of its folder. Default: the "
    "first one whose output fits the file."
)


class IpAdapterView(AdapterView):
    """One IP-Adapter. What is read from its file is null where the API cannot read the file."""

    id: str = Field(description="Value of `name` in a request's `ip_adapters`.")
    family: str = Field(description="Architecture of the models that it works with.")
    title: str = Field(description="Name for people; empty for uploaded ones.")
    models: list[str] = Field(description="Ids of the models that it fits; empty: all models of its family.")
    kind: str | None = Field(
        description="`plain`: reads one vector of an image; `plus` and `full` read more of it; `redux`: reads "
        "all of it, and makes it part of the prompt."
    )
    tokens: int | None = Field(
        description="Number of tokens that one reference image becomes; null for some, such as `redux`."
    )
    image_encoder: str = Field(description="Name of the image encoder that reads its images.")


class IpAdapterList(ListView[IpAdapterView]):
    """The IP-Adapters that the caller's requests may use."""


@router.get("/ip-adapters", dependencies=[LIST_LIMITED], responses=problems(429, 503))
def list_ip_adapters(catalogue: VisibleCatalogueDep, services: ServicesDep) -> IpAdapterList:
    """List the IP-Adapters that your requests may use, which show a model reference images beside the prompt."""
    workers = live_workers(services)
    return IpAdapterList(data=[_view(row, catalogue, workers) for row in catalogue.ip_adapters])


@router.post(
    "/ip-adapters",
    status_code=201,
    openapi_extra=adapter_body("IP-Adapter", image_encoder={"type": "string", "description": _ENCODER}),
    responses={200: {"model": IpAdapterView, "description": "Uploaded before"}, **problems(*MAKING)},
)
async def add_ip_adapter(
    file: LoraFileDep,
    services: ServicesDep,
    files: IpAdaptersDep,
    call: IdempotentCallDep,
    response: Response,
    name: NameQuery = None,
    image_encoder: Annotated[str | None, Query(description=_ENCODER)] = None,
) -> IpAdapterView:
    """Upload an IP-Adapter: a `.safetensors` file as raw bytes or as the field `file` of a form.

    One that is uploaded with an admin's key is visible to all; any other is visible to its owner only.
    """
    wanted = chosen(file, "image_encoder", image_encoder)
    row: UploadedIpAdapter = await files.add(
        file, name, call, response, lambda path: _check_file(path, wanted, services), ["image_encoder"]
    )
    return _view(row, services.catalogue, [])


@router.delete(
    "/ip-adapters/{id}",
    status_code=204,
    dependencies=[RATE_LIMITED],
    responses=problems(403, 404, 409, 429, 503),
)
def remove_ip_adapter(
    id: Annotated[str, UrlPath(description="Id of the IP-Adapter.")], files: IpAdaptersDep
) -> None:
    """Delete an uploaded IP-Adapter. Jobs that were accepted with it still run with it."""
    files.remove(id)


def _check_file(path: Path, wanted: str | None, services: Services) -> dict[str, Any]:
    """Check all of a file; raises AdapterRefused."""
    facts = read_ip_adapter(path)
    catalogue = services.agreed_rows.catalogue(services.catalogue)
    family, models = find_models(facts, catalogue)
    encoder = find_image_encoder(facts, catalogue, wanted)
    check_finite(path, read_header(path).tensors)
    return {"family": family, "models": models, "image_encoder": encoder, "facts": facts}


def _view(row: IpAdapterSpec, catalogue: Catalogue, workers: list[WorkerReport]) -> IpAdapterView:
    facts = row.facts if isinstance(row, UploadedIpAdapter) else find_ip_adapter_facts(catalogue, row)
    return IpAdapterView(
        id=row.id,
        family=row.family,
        title=row.title,
        models=list(row.models),
        kind=None if facts is None else facts.kind,
        tokens=None if facts is None else facts.tokens,
        image_encoder=Path(row.image_encoder).name,
        **state_of(row, "ip_adapter", workers),
    )
