"""Routes that list what the service offers: models, ControlNets, schedulers, preprocessors, workers."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.auth import Principal
from app.dependencies.access import ADMINS_ONLY, PrincipalDep, VisibleCatalogueDep
from app.dependencies.services import ServicesDep
from app.openapi.routes import problems
from app.parsing.schemas import bounds_of, controlnet_ids, lora_ids, schemas_for
from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.catalogue.families import FAMILIES, Task
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.job_view import ListView
from contracts.processes.preparations import Preparation
from contracts.processes.workers import WorkerReport, is_ready, preparation_of, read_workers
from contracts.queue.client import JobQueue
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.requests.schema import Txt2ImgRequest

router = APIRouter(prefix="/v1", tags=["catalogue"], responses=problems(503))


class ModelView(BaseModel):
    """One model: OpenAI's fields, and ours."""

    id: str
    object: Literal["model"] = "model"
    owned_by: Literal["darkroom"] = "darkroom"
    family: str
    title: str
    tasks: list[Task]
    defaults: dict[str, Any] = Field(description="values of the fields that a request may omit")
    limits: dict[str, int | None]
    schedulers: list[str]
    loras: list[str]
    controlnets: list[str]
    prompt_hint: str
    warm: bool = Field(description="whether any worker has the model loaded")
    warm_on: list[str] = Field(description="workers that have the model loaded; empty unless you are an admin")
    ready: bool = Field(
        description="whether any worker has the model's files, so that a job waits for no download"
    )
    preparing: Preparation | None = Field(
        description="how a worker's download of the model goes on; null where none is needed or under way"
    )


class ModelDetail(ModelView):
    """One model with the JSON Schema of each task's request, narrowed to what this model supports."""

    schemas: dict[Task, dict[str, Any]]


class ControlNetView(BaseModel):
    """One ControlNet."""

    id: str
    family: str
    title: str
    kind: str
    preprocessors: list[str]
    ready: bool = Field(description="whether any worker has its files, so that a job waits for no download")
    preparing: Preparation | None = Field(
        description="how a worker's download of it goes on; null where none is needed or under way"
    )


class SchedulerView(BaseModel):
    """One scheduler, and the model families that it works with."""

    id: str
    kind: str
    families: list[str]


class PreprocessorView(BaseModel):
    """One preprocessor, and the ControlNets that it makes control images for."""

    id: str
    controlnets: list[str]


@router.get("/models")
def list_models(
    catalogue: VisibleCatalogueDep, services: ServicesDep, principal: PrincipalDep
) -> ListView[ModelView]:
    """List all models."""
    workers = _workers(services.queue)
    return ListView(data=[ModelView(**_model(row, catalogue, workers, principal)) for row in catalogue.models])


@router.get("/models/{id}", responses=problems(404))
def show_model(
    id: str, catalogue: VisibleCatalogueDep, services: ServicesDep, principal: PrincipalDep
) -> ModelDetail:
    """Show a model, with the JSON Schema of each task's request for it."""
    row = catalogue.model(id)
    model = _model(row, catalogue, _workers(services.queue), principal)
    return ModelDetail(**model, schemas=schemas_for(row, catalogue))


@router.get("/controlnets")
def list_controlnets(services: ServicesDep) -> ListView[ControlNetView]:
    """List all ControlNets."""
    workers = _workers(services.queue)
    return ListView(
        data=[
            ControlNetView(
                id=row.id,
                family=row.family,
                title=row.title,
                kind=row.kind,
                preprocessors=list(row.preprocessors),
                ready=is_ready(f"controlnet:{row.id}", workers),
                preparing=preparation_of(f"controlnet:{row.id}", workers),
            )
            for row in services.catalogue.controlnets
        ]
    )


@router.get("/schedulers")
def list_schedulers() -> ListView[SchedulerView]:
    """List all schedulers, including those that no model here can use."""
    return ListView(
        data=[
            SchedulerView(
                id=row.id,
                kind=row.kind,
                families=[family.id for family in FAMILIES.values() if family.kind == row.kind],
            )
            for row in SCHEDULERS.values()
        ]
    )


@router.get("/preprocessors")
def list_preprocessors(services: ServicesDep) -> ListView[PreprocessorView]:
    """List the preprocessors, which make a control image from an ordinary image."""
    catalogue = services.catalogue
    names = dict.fromkeys(name for row in catalogue.controlnets for name in row.preprocessors)
    return ListView(
        data=[
            PreprocessorView(
                id=name, controlnets=[row.id for row in catalogue.controlnets if name in row.preprocessors]
            )
            for name in names
        ]
    )


@router.get("/workers", dependencies=[ADMINS_ONLY], responses=problems(403))
def list_workers(services: ServicesDep) -> ListView[WorkerReport]:
    """List the live workers. For admins only, since reports name the jobs and LoRAs of all owners."""
    return ListView(data=_workers(services.queue))


def _workers(queue: JobQueue) -> list[WorkerReport]:
    with redis_errors_are_unavailable():
        return read_workers(queue.connection)


def _model(
    row: ModelSpec, catalogue: Catalogue, workers: list[WorkerReport], principal: Principal
) -> dict[str, Any]:
    warm_on = [worker.id for worker in workers if row.id in worker.warm]
    family = row.family_spec
    defaults = {**family.defaults, **row.defaults}
    min_side, max_side = bounds_of(Txt2ImgRequest, "width")
    return {
        "id": row.id,
        "family": row.family,
        "title": row.title,
        "tasks": row.tasks,
        "defaults": {name: value for name, value in defaults.items() if name not in row.refuses},
        "limits": {
            "min_side": min_side,
            "max_side": max_side,
            "size_multiple": family.size_multiple,
            "max_pixels": row.pixel_cap,
            "max_images": bounds_of(Txt2ImgRequest, "num_images")[1],
            "max_sequence_length": family.max_sequence_length,
        },
        "schedulers": row.schedulers,
        "loras": lora_ids(row, catalogue),
        "controlnets": controlnet_ids(row, catalogue),
        "prompt_hint": row.prompt_hint,
        "warm": bool(warm_on),
        "warm_on": warm_on if principal.is_admin else [],
        "ready": is_ready(row.id, workers),
        "preparing": preparation_of(row.id, workers),
    }
