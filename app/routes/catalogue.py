"""Routes that list what the service offers: models, ControlNets, schedulers, preprocessors, workers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.auth import Principal
from app.dependencies.access import ADMINS_ONLY, LIST_LIMITED, PrincipalDep, VisibleCatalogueDep
from app.dependencies.queries import NULL_IS_ABSENT
from app.dependencies.services import ServicesDep
from app.openapi.routes import problems
from app.parsing.schemas import bounds_of, controlnet_ids, ip_adapter_ids, lora_ids, schemas_for
from contracts.catalogue.catalogue import Catalogue, IpAdapterSpec, ModelSpec, kinds_of
from contracts.catalogue.families import FAMILIES, Task
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.job_view import ListView
from contracts.memory.planner import Capacity
from contracts.processes.preparations import Preparation
from contracts.processes.workers import WorkerReport, is_ready, preparation_of, read_workers, refusal_of
from contracts.queue.client import JobQueue
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.requests.schema import Txt2ImgRequest
from contracts.weights.ip_adapter_rows import find_ip_adapter_facts

router = APIRouter(prefix="/v1", tags=["catalogue"], dependencies=[LIST_LIMITED], responses=problems(429, 503))


class ReferencesView(BaseModel):
    """The reference images of a model's edits."""

    max_count: int = Field(description="Number of references that one request may have.")
    meaning: str = Field(description="What the references are for.")


class ModelView(BaseModel):
    """One model: OpenAI's fields, and ours."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: str = Field(description="Value of the field `model` in requests.")
    object: Literal["model"] = Field("model", description="Always `model`.")
    owned_by: Literal["darkroom"] = Field("darkroom", description="Always `darkroom`.")
    family: str = Field(description="Architecture: `sd15`, `sdxl`, `sd3`, `flux`, `pixart` or `chroma`.")
    title: str = Field(description="Name for people.")
    aliases: list[str] = Field(description="Other names that requests may use for it.")
    tasks: list[Task] = Field(description="Tasks that it can run.")
    defaults: dict[str, Any] = Field(description="Field -> its value where a request leaves it out.")
    limits: dict[str, int | None] = Field(
        description="`min_side`, `max_side`, `size_multiple` in pixels; `max_pixels` of width × height; "
        "`max_images` of a request; `max_sequence_length` in tokens, null without a T5 encoder."
    )
    references: ReferencesView | None = Field(
        description="What `references` of an edit are to it; null where it has no task `edit`."
    )
    schedulers: list[str] = Field(description="Names of the schedulers that work with it.")
    loras: list[str] = Field(description="Ids of the LoRAs that work with it, uploaded ones included.")
    controlnets: list[str] = Field(description="Ids of the ControlNets that work with it.")
    ip_adapters: list[str] = Field(description="Ids of the IP-Adapters that work with it.")
    prompt_hint: str = Field(description="A prompt that it is good at; empty where the operator gave none.")
    warm: bool = Field(description="Whether any worker has the model loaded.")
    warm_on: list[str] = Field(
        description="Ids of the workers that have the model loaded; empty unless you are an admin."
    )
    available: bool = Field(
        description="Whether jobs of it can be sent; false once every worker has failed to load it (503 then)."
    )
    unavailable_reason: str | None = Field(description="Why it is not available; null while it is.")
    ready: bool = Field(
        description="Whether any worker has the model's files, so that a job waits for no download."
    )
    preparing: Preparation | None = Field(
        description="How a worker's download of the model goes on; null where none is needed or under way."
    )


class ModelDetail(ModelView):
    """One model with the JSON Schema of each task's request, narrowed to what this model supports."""

    schemas: dict[Task, dict[str, Any]] = Field(description="Task -> JSON Schema of its request for this model.")


class ControlNetView(BaseModel):
    """One ControlNet."""

    id: str = Field(description="Value of the field `controlnet` in requests.")
    family: str = Field(description="Architecture of the models that it works with.")
    title: str = Field(description="Name for people.")
    kind: str = Field(description="`hint`: takes a control image; `inpaint`: reads the job's image and mask.")
    preprocessors: list[str] = Field(description="Names of the preprocessors that make its control images.")
    ready: bool = Field(description="Whether any worker has its files, so that a job waits for no download.")
    preparing: Preparation | None = Field(
        description="How a worker's download of it goes on; null where none is needed or under way."
    )


class IpAdapterView(BaseModel):
    """One IP-Adapter. What is read from its file is null where the API cannot read the file."""

    id: str = Field(description="Value of `name` in a request's `ip_adapters`.")
    family: str = Field(description="Architecture of the models that it works with.")
    title: str = Field(description="Name for people.")
    models: list[str] = Field(description="Ids of the models that it fits; empty: all models of its family.")
    kind: str | None = Field(
        description="`plain`: reads one vector of an image; `plus` and `full` read more of it."
    )
    tokens: int | None = Field(description="Tokens that one reference image becomes.")
    ready: bool = Field(description="Whether any worker has its file, so that a job waits for no download.")
    preparing: Preparation | None = Field(
        description="How a worker's download of it goes on; null where none is needed or under way."
    )


class SchedulerView(BaseModel):
    """One scheduler, and the model families that it works with."""

    id: str = Field(description="Value of the field `scheduler` in requests.")
    kind: str = Field(description="`diffusion`, `flow` or `edm`: the kind of checkpoint that it works with.")
    families: list[str] = Field(description="Model families that it works with.")


class PreprocessorView(BaseModel):
    """One preprocessor, and the ControlNets that it makes control images for."""

    id: str = Field(description="Value of the field `preprocess` of a control.")
    controlnets: list[str] = Field(description="Ids of the ControlNets that it makes control images for.")


class ModelList(ListView[ModelView]):
    """The models."""


class ControlNetList(ListView[ControlNetView]):
    """The ControlNets."""


class IpAdapterList(ListView[IpAdapterView]):
    """The IP-Adapters."""


class SchedulerList(ListView[SchedulerView]):
    """The schedulers."""


class PreprocessorList(ListView[PreprocessorView]):
    """The preprocessors."""


class ListedWorker(WorkerReport):
    """A worker in the list: without what its memory plans are made from, unless that is asked for."""

    stage_seconds: dict[str, float] = Field(
        default_factory=dict,
        exclude_if=lambda value: not value,
        description="Stage (`load`, `encode_prompt`, `denoise`, `decode`, …) -> seconds that its jobs spent in "
        "it; only with `detail=plan`.",
    )
    placement: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        exclude_if=lambda value: not value,
        description="Id of a model -> component -> where its weights are; only with `detail=plan`.",
    )
    capacity: Annotated[Capacity | None, WithJsonSchema({"type": ["object", "null"]}, mode="serialization")] = (
        Field(
            None,
            exclude_if=lambda value: value is None,
            description="Sizes that its memory plans are made from; only with `detail=plan`. "
            "Internal: any release may change its fields.",
        )
    )
    ready: list[str] = Field(
        default_factory=list,
        exclude_if=lambda value: not value,
        description="What it can use without a download: ids of models, `controlnet:ID` and `lora:ID`; only with "
        "`detail=plan`.",
    )

    @classmethod
    def of(cls, report: WorkerReport, *, with_plans: bool) -> ListedWorker:
        """The entry for a worker."""
        hidden: dict[str, Any] = {"stage_seconds": {}, "placement": {}, "capacity": None, "ready": []}
        return cls.model_construct(**{**dict(report), **({} if with_plans else hidden)})


class WorkerList(ListView[ListedWorker]):
    """The live workers."""


@router.get("/models")
def list_models(catalogue: VisibleCatalogueDep, services: ServicesDep, principal: PrincipalDep) -> ModelList:
    """List all models."""
    workers = _workers(services.queue)
    return ModelList(data=[ModelView(**_model(row, catalogue, workers, principal)) for row in catalogue.models])


@router.get("/models/{id}", responses=problems(404))
def show_model(
    id: Annotated[str, Path(description="Id of the model.")],
    catalogue: VisibleCatalogueDep,
    services: ServicesDep,
    principal: PrincipalDep,
) -> ModelDetail:
    """Show a model, with the JSON Schema of each task's request for it."""
    row = catalogue.model(id)
    model = _model(row, catalogue, _workers(services.queue), principal)
    return ModelDetail(**model, schemas=schemas_for(row, catalogue))


@router.get("/controlnets")
def list_controlnets(services: ServicesDep) -> ControlNetList:
    """List all ControlNets."""
    workers = _workers(services.queue)
    return ControlNetList(
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


@router.get("/ip-adapters")
def list_ip_adapters(services: ServicesDep) -> IpAdapterList:
    """List all IP-Adapters, which show a model reference images beside the prompt."""
    workers = _workers(services.queue)
    return IpAdapterList(
        data=[_ip_adapter(row, services.catalogue, workers) for row in services.catalogue.ip_adapters]
    )


@router.get("/schedulers")
def list_schedulers() -> SchedulerList:
    """List all schedulers, including those that no model here can use."""
    return SchedulerList(
        data=[
            SchedulerView(
                id=row.id,
                kind=row.kind,
                families=[family.id for family in FAMILIES.values() if row.kind in kinds_of(family)],
            )
            for row in SCHEDULERS.values()
        ]
    )


@router.get("/preprocessors")
def list_preprocessors(services: ServicesDep) -> PreprocessorList:
    """List the preprocessors, which make a control image from an ordinary image."""
    catalogue = services.catalogue
    names = dict.fromkeys(name for row in catalogue.controlnets for name in row.preprocessors)
    return PreprocessorList(
        data=[
            PreprocessorView(
                id=name, controlnets=[row.id for row in catalogue.controlnets if name in row.preprocessors]
            )
            for name in names
        ]
    )


@router.get("/workers", dependencies=[ADMINS_ONLY], responses=problems(403, 422))
def list_workers(
    services: ServicesDep,
    detail: Annotated[
        Literal["plan"] | None,
        NULL_IS_ABSENT,
        Query(description="`plan`: also what memory plans are made from, which is long. Default: without it."),
    ] = None,
) -> WorkerList:
    """List the live workers. For admins only, since reports name the jobs and LoRAs of all owners."""
    reports = _workers(services.queue)
    return WorkerList(data=[ListedWorker.of(report, with_plans=detail == "plan") for report in reports])


def _ip_adapter(row: IpAdapterSpec, catalogue: Catalogue, workers: list[WorkerReport]) -> IpAdapterView:
    facts = find_ip_adapter_facts(catalogue, row)
    name = f"ip_adapter:{row.id}"
    return IpAdapterView(
        id=row.id,
        family=row.family,
        title=row.title,
        models=list(row.models),
        kind=None if facts is None else facts.kind,
        tokens=None if facts is None else facts.tokens,
        ready=is_ready(name, workers),
        preparing=preparation_of(name, workers),
    )


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
    refusal = refusal_of(row.id, workers)
    return {
        "id": row.id,
        "family": row.family,
        "title": row.title,
        "aliases": list(row.aliases),
        "tasks": row.tasks,
        "defaults": {name: value for name, value in defaults.items() if name not in row.refused},
        "limits": {
            "min_side": min_side,
            "max_side": max_side,
            "size_multiple": family.size_multiple,
            "max_pixels": row.pixel_cap,
            "max_images": bounds_of(Txt2ImgRequest, "num_images")[1],
            "max_sequence_length": family.max_sequence_length,
        },
        "references": None if family.references is None else asdict(family.references),
        "schedulers": row.schedulers,
        "loras": lora_ids(row, catalogue),
        "controlnets": controlnet_ids(row, catalogue),
        "ip_adapters": ip_adapter_ids(row, catalogue),
        "prompt_hint": row.prompt_hint,
        "warm": bool(warm_on),
        "warm_on": warm_on if principal.is_admin else [],
        "available": refusal is None,
        "unavailable_reason": refusal,
        "ready": is_ready(row.id, workers),
        "preparing": preparation_of(row.id, workers),
    }
