"""Routes that list, upload and delete ControlNets and T2I-Adapters: the operator's and uploaded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi import Path as UrlPath
from pydantic import Field

from app.dependencies.access import LIST_LIMITED, RATE_LIMITED, VisibleCatalogueDep
from app.dependencies.bodies import ControlNetFileDep
from app.dependencies.services import ServicesDep, live_workers
from app.dependencies.submissions import IdempotentCallDep
from app.openapi.bodies import adapter_body
from app.openapi.routes import MAKING, problems
from app.routes.adapter_files import AdapterFiles, AdapterView, NameQuery, files_of, state_of
from app.services import Services
from contracts.catalogue.catalogue import ControlNetSpec
from contracts.processes.workers import WorkerReport
from contracts.uploads.adapters import CONTROLNETS, UploadedControlNet
from contracts.views.lists import ListView
from contracts.weights.controls.controlnet_files import ControlNetFacts, read_controlnet
from contracts.weights.controls.controlnet_models import count_values, find_models
from contracts.weights.controls.t2i_adapter_files import is_t2i_adapter
from contracts.weights.formats.finite import check_finite

router = APIRouter(prefix="/v1", tags=["catalogue"])
ControlNetsDep = Annotated[AdapterFiles, Depends(files_of(CONTROLNETS))]


class ControlNetView(AdapterView):
    """One ControlNet or T2I-Adapter."""

    id: str = Field(description="Value of the field `controlnet` in requests.")
    family: str = Field(description="Architecture of the models that it works with.")
    title: str = Field(description="Name for people; empty for uploaded ones.")
    models: list[str] = Field(description="Ids of the models that it fits; empty: all models of its family.")
    kind: str = Field(
        description="`hint`: takes a control image; `inpaint`: reads the job's image and mask; `t2i_adapter`: a "
        "T2I-Adapter, which takes a control image."
    )
    modes: list[str] = Field(
        description="Kinds of control of a union: a request's `mode` is a position here, from 0. Empty for others."
    )
    preprocessors: list[str] = Field(description="Names of the preprocessors that make its control images.")


class ControlNetList(ListView[ControlNetView]):
    """The ControlNets and T2I-Adapters that the caller's requests may use."""


@router.get("/controlnets", dependencies=[LIST_LIMITED], responses=problems(429, 503))
def list_controlnets(catalogue: VisibleCatalogueDep, services: ServicesDep) -> ControlNetList:
    """List the ControlNets and T2I-Adapters that your requests may use, your own among them."""
    workers = live_workers(services)
    return ControlNetList(data=[_view(row, workers) for row in catalogue.controlnets])


@router.post(
    "/controlnets",
    status_code=201,
    openapi_extra=adapter_body("ControlNet"),
    responses={200: {"model": ControlNetView, "description": "Uploaded before"}, **problems(*MAKING)},
)
async def add_controlnet_file(
    file: ControlNetFileDep,
    services: ServicesDep,
    files: ControlNetsDep,
    call: IdempotentCallDep,
    response: Response,
    name: NameQuery = None,
) -> ControlNetView:
    """Upload a ControlNet, control-LoRA or T2I-Adapter: a `.safetensors` file, raw or as `file` of a form.

    Control-LoRAs are in the layout of the original release, others in diffusers' layout. ControlNets may be for
    models of Stable Diffusion 1, SDXL, SD3, FLUX.1 and Qwen-Image, the others for those of the first two.

    One that is uploaded with an admin's key is visible to all; any other is visible to its owner only.
    """
    row: UploadedControlNet = await files.add(file, name, call, response, lambda path: _check_file(path, services))
    return _view(row, [])


@router.delete(
    "/controlnets/{id}",
    status_code=204,
    dependencies=[RATE_LIMITED],
    responses=problems(403, 404, 409, 429, 503),
)
def remove_controlnet_file(
    id: Annotated[str, UrlPath(description="Id of the ControlNet.")], files: ControlNetsDep
) -> None:
    """Delete an uploaded or trained ControlNet or T2I-Adapter. Jobs that were accepted with it still run."""
    files.remove(id)


def _check_file(path: Path, services: Services) -> dict[str, Any]:
    """Check all of a file; raises AdapterRefused."""
    tensors = read_controlnet(path)
    catalogue = services.agreed_rows.catalogue(services.catalogue)
    family, models = find_models(tensors, catalogue)
    check_finite(path, tensors)
    kind = "t2i_adapter" if is_t2i_adapter(tensors) else "hint"
    facts = ControlNetFacts(values=count_values(tensors, family, models, catalogue))
    return {"family": family, "models": models, "kind": kind, "facts": facts}


def _view(row: ControlNetSpec, workers: list[WorkerReport]) -> ControlNetView:
    return ControlNetView(
        id=row.id,
        family=row.family,
        title=row.title,
        models=list(row.models),
        kind=row.kind,
        modes=list(row.modes),
        preprocessors=list(row.preprocessors),
        **state_of(row, "controlnet", workers),
    )
