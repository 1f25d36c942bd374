"""Routes that list what the service offers beside models, adapters and ControlNets: upscalers, VAEs, …"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.dependencies.access import LIST_LIMITED, VisibleCatalogueDep
from app.dependencies.services import ServicesDep, live_workers
from app.openapi.routes import problems
from app.parsing.narrow_schemas import network_schema
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.rows.preprocessors import PREPROCESSORS, PreprocessorOption
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.jobs.preparations import Preparation
from contracts.processes.workers import is_ready, preparation_of
from contracts.requests.checks.vaes import vae_ids
from contracts.requests.plain.erasing import EraseRequest
from contracts.requests.plain.upscaling import UpscaleRequest
from contracts.requests.task_parameters import JobTask
from contracts.views.lists import ListView

router = APIRouter(prefix="/v1", tags=["catalogue"], dependencies=[LIST_LIMITED], responses=problems(429, 503))


class UpscalerView(BaseModel):
    """One upscaler."""

    id: str = Field(description="Value of the field `model` of `POST /v1/upscale`.")
    title: str = Field(description="Name for people.")
    scale: int = Field(description="How many times as wide and high as its input the result is.")
    max_pixels: int = Field(description="Maximum width × height of its input, by this service's limits.")
    schemas: dict[JobTask, dict[str, Any]] = Field(
        description="Task -> JSON Schema of its request for this upscaler."
    )
    ready: bool = Field(description="Whether any worker has its file, so that a job waits for no download.")
    preparing: Preparation | None = Field(
        description="How a worker's download of it goes on; null where none is needed or under way."
    )


class EraserView(BaseModel):
    """One eraser."""

    id: str = Field(description="Value of the field `model` of `POST /v1/erase`.")
    title: str = Field(description="Name for people.")
    schemas: dict[JobTask, dict[str, Any]] = Field(
        description="Task -> JSON Schema of its request for this eraser."
    )
    ready: bool = Field(description="Whether any worker has its file, so that a job waits for no download.")
    preparing: Preparation | None = Field(
        description="How a worker's download of it goes on; null where none is needed or under way."
    )


class SchedulerView(BaseModel):
    """One scheduler, and the model families that it works with."""

    id: str = Field(description="Value of the field `scheduler` in requests.")
    kind: str = Field(
        description="`diffusion`, `flow`, `edm`, `trigflow` or `learned_variance`: the kind of checkpoint that it "
        "works with."
    )
    families: list[str] = Field(description="Model families that it works with.")


class PreprocessorOptionView(BaseModel):
    """One option of a preprocessor: a number."""

    id: str = Field(description="Name in `preprocess_options`.")
    type: Literal["integer", "number"] = Field(description="`integer`: whole numbers only.")
    minimum: float = Field(description="The minimum.")
    maximum: float = Field(description="The maximum.")
    default: float | None = Field(description="Its default; null if that depends on the image or the job.")
    description: str = Field(description="What it does.")


class PreprocessorView(BaseModel):
    """One preprocessor, its options, and the ControlNets that it makes control images for."""

    id: str = Field(description="Value of the field `preprocess` of a control.")
    title: str = Field(description="What it makes, for people.")
    options: list[PreprocessorOptionView] = Field(description="Its options; none of them is required.")
    controlnets: list[str] = Field(
        description="Ids of the ControlNets that are known to read its control images; others may as well."
    )
    runs: Literal["request", "job"] = Field(
        description="`request`: `POST /v1/preprocess` and controls make its images at once. `job`: it is a model; "
        "`POST /v1/preprocess` creates a job, and the image of a control is made in the job that has the "
        "control."
    )
    ready: bool = Field(description="Whether its images can be made without a download.")
    preparing: Preparation | None = Field(
        description="How a worker's download of it goes on; null where none is needed or under way."
    )


class VaeView(BaseModel):
    """One VAE that can take the place of a model's own."""

    id: str = Field(description="Value of the field `vae` in requests.")
    family: str = Field(description="Architecture of the models that it works with.")
    title: str = Field(description="Name for people.")
    models: list[str] = Field(description="Ids of the models whose VAE it can replace.")


class VaeList(ListView[VaeView]):
    """The VAEs."""


class UpscalerList(ListView[UpscalerView]):
    """The upscalers."""


class EraserList(ListView[EraserView]):
    """The erasers."""


class SchedulerList(ListView[SchedulerView]):
    """The schedulers."""


class PreprocessorList(ListView[PreprocessorView]):
    """The preprocessors."""


@router.get("/vaes")
def list_vaes(catalogue: VisibleCatalogueDep) -> VaeList:
    """List the VAEs that can take the place of a model's own."""
    return VaeList(
        data=[
            VaeView(
                id=row.id,
                family=row.family,
                title=row.title,
                models=[model.id for model in catalogue.models if row.id in vae_ids(model, catalogue)],
            )
            for row in catalogue.vaes
        ]
    )


@router.get("/upscalers")
def list_upscalers(services: ServicesDep) -> UpscalerList:
    """List all upscalers; the first is the one that `POST /v1/upscale` uses without a `model`."""
    workers, settings = live_workers(services), services.settings
    return UpscalerList(
        data=[
            UpscalerView(
                id=row.id,
                title=row.title,
                scale=row.scale,
                max_pixels=min(settings.max_image_pixels, settings.max_upscaled_pixels // row.scale**2),
                schemas={JobTask.UPSCALE: network_schema(UpscaleRequest, row.id)},
                ready=is_ready(f"upscaler:{row.id}", workers),
                preparing=preparation_of(f"upscaler:{row.id}", workers),
            )
            for row in services.catalogue.upscalers
        ]
    )


@router.get("/erasers")
def list_erasers(services: ServicesDep) -> EraserList:
    """List all erasers; the first is the one that `POST /v1/erase` uses without a `model`."""
    workers = live_workers(services)
    return EraserList(
        data=[
            EraserView(
                id=row.id,
                title=row.title,
                schemas={JobTask.ERASE: network_schema(EraseRequest, row.id)},
                ready=is_ready(f"eraser:{row.id}", workers),
                preparing=preparation_of(f"eraser:{row.id}", workers),
            )
            for row in services.catalogue.erasers
        ]
    )


@router.get("/schedulers")
def list_schedulers() -> SchedulerList:
    """List all schedulers, including those that no model here can use."""
    return SchedulerList(
        data=[
            SchedulerView(
                id=row.id,
                kind=row.kind,
                families=[family.id for family in FAMILIES.values() if family.follows(row)],
            )
            for row in SCHEDULERS.values()
        ]
    )


@router.get("/preprocessors")
def list_preprocessors(services: ServicesDep) -> PreprocessorList:
    """List the preprocessors, which make a control image from an ordinary image."""
    controlnets, workers = services.catalogue.controlnets, live_workers(services)
    return PreprocessorList(
        data=[
            PreprocessorView(
                id=name,
                title=preprocessor.title,
                options=[_option(option) for option in preprocessor.options],
                controlnets=[row.id for row in controlnets if name in row.preprocessors],
                runs="request",
                ready=True,
                preparing=None,
            )
            for name, preprocessor in PREPROCESSORS.items()
        ]
        + [
            PreprocessorView(
                id=row.id,
                title=row.preprocessor.title,
                options=[_option(option) for option in row.preprocessor.options],
                controlnets=[],
                runs="job",
                ready=is_ready(f"preprocessor:{row.id}", workers),
                preparing=preparation_of(f"preprocessor:{row.id}", workers),
            )
            for row in services.catalogue.preprocessors
        ]
    )


def _option(option: PreprocessorOption) -> PreprocessorOptionView:
    return PreprocessorOptionView(
        id=option.id,
        type="integer" if option.is_integer else "number",
        minimum=option.minimum,
        maximum=option.maximum,
        default=option.default,
        description=option.description,
    )
