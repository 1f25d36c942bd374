"""The route by which operators list the live workers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field, WithJsonSchema

from app.dependencies.access import ADMINS_ONLY, LIST_LIMITED
from app.dependencies.queries import NULL_IS_ABSENT
from app.dependencies.services import ServicesDep, live_workers
from app.openapi.routes import problems
from contracts.left_out_fields import LeftOutIfEmpty
from contracts.memory.planner import Capacity
from contracts.processes.workers import WorkerReport
from contracts.views.lists import ListView

router = APIRouter(prefix="/v1", tags=["catalogue"], dependencies=[LIST_LIMITED], responses=problems(429, 503))


class ListedWorker(WorkerReport):
    """A worker in the list: without what its memory plans are made from, unless that is asked for."""

    stage_seconds: LeftOutIfEmpty[dict[str, float]] = Field(
        default_factory=dict,
        description="Stage (`load`, `encode_prompt`, `denoise`, `decode`, …) -> seconds that its jobs spent in "
        "it; only with `detail=plan`.",
    )
    placement: LeftOutIfEmpty[dict[str, dict[str, str]]] = Field(
        default_factory=dict,
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
    ready: LeftOutIfEmpty[list[str]] = Field(
        default_factory=list,
        description="Files that it has, so that no download is needed: ids of models, `controlnet:ID` "
        "and `lora:ID`; only with `detail=plan`.",
    )

    @classmethod
    def of(cls, report: WorkerReport, *, with_plans: bool) -> ListedWorker:
        """The entry for a worker."""
        hidden: dict[str, Any] = {"stage_seconds": {}, "placement": {}, "capacity": None, "ready": []}
        return cls.model_construct(**{**dict(report), **({} if with_plans else hidden)})


class WorkerList(ListView[ListedWorker]):
    """The live workers."""


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
    reports = live_workers(services)
    return WorkerList(data=[ListedWorker.of(report, with_plans=detail == "plan") for report in reports])
