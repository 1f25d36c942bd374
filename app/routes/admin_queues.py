"""Routes by which operators see what waits, empty queues, pause models, and drain workers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, Field

from app.audit import record_action
from app.dependencies.access import ADMINS_ONLY, LIST_LIMITED, PrincipalDep
from app.dependencies.queries import NULL_IS_ABSENT, QueueFilterDep, null_is_default_limit
from app.dependencies.services import ServicesDep
from app.openapi.routes import problems
from app.services import Services
from contracts.errors import CatalogueError, FieldProblem, InvalidRequest
from contracts.queue.operations import ALL_MODELS, Hold
from contracts.queue.waiting_queues import QueueFilter, QueueName, find_queues, read_queues
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.requests.schema import Priority
from contracts.views.lists import ListView

router = APIRouter(
    prefix="/v1/admin", tags=["admin"], dependencies=[ADMINS_ONLY], responses=problems(403, 422, 429, 503)
)


class WaitingQueueView(BaseModel):
    """The jobs of one priority, model and owner that wait."""

    model: str = Field(description="Id of the model.")
    owner: str = Field(description="Owner of the jobs.")
    priority: Priority = Field(description="Priority of the jobs.")
    waiting: int = Field(description="Number of waiting jobs.")
    oldest_seconds: float = Field(description="Seconds that the first of them has waited.")
    predicted_seconds: float | None = Field(
        description="Predicted seconds of one worker's time for all of them; null before anything was measured."
    )
    paused: bool = Field(description="Whether the operator has paused the model, or all models.")


class WaitingQueueList(ListView[WaitingQueueView]):
    """A page of the queues in which jobs wait, by priority, model and owner."""


class HoldView(BaseModel):
    """A paused model or a drained worker."""

    name: str = Field(description="Id of the model, `*` for all models; or id of the worker.")
    since: AwareDatetime = Field(description="When it was paused or drained.")
    api_key: str = Field(description="Id of the API key that did it; `anonymous` without one.")


class HoldsView(BaseModel):
    """The paused models and drained workers."""

    paused: list[HoldView] = Field(description="Paused models, by name.")
    drained: list[HoldView] = Field(
        description="Drained workers, by id; one restarted under the same name stays drained."
    )


class PurgeView(BaseModel):
    """The result of a purge."""

    cancelled: int = Field(description="Number of jobs that were cancelled.")
    has_more: bool = Field(description="Whether more jobs are left; call again to cancel them.")


@router.get("/queues", dependencies=[LIST_LIMITED])
def list_queues(
    filters: QueueFilterDep,
    services: ServicesDep,
    limit: Annotated[
        int,
        Query(ge=1, le=100, description="Maximum number of queues in the answer."),
        null_is_default_limit(50, 100),
    ] = 50,
    cursor: Annotated[
        str | None,
        Query(max_length=400, description="`next_cursor` of the previous page. Default: the first page."),
        NULL_IS_ABSENT,
    ] = None,
) -> WaitingQueueList:
    """List what waits, of all owners: a row for each priority, model and owner, the highest priority first."""
    redis = services.queue.connection
    with redis_errors_are_unavailable():
        found = find_queues(redis, filters)
    if cursor is not None:
        after = _read_cursor(cursor)
        found = [queue for queue in found if queue > after]
    states = read_queues(redis, found[:limit])
    paused = {hold.name for hold in services.operations.paused()}
    return WaitingQueueList(
        data=[
            WaitingQueueView(
                model=state.queue.model,
                owner=state.queue.owner,
                priority=state.queue.priority,
                waiting=state.waiting,
                oldest_seconds=round(state.oldest_seconds, 3),
                predicted_seconds=None if state.predicted_seconds is None else round(state.predicted_seconds, 3),
                paused=not paused.isdisjoint({state.queue.model, ALL_MODELS}),
            )
            for state in states
        ],
        has_more=len(found) > limit,
        next_cursor=found[limit - 1].write_cursor() if len(found) > limit else None,
    )


@router.post("/queues/purge")
def purge_queues(
    filters: QueueFilterDep,
    services: ServicesDep,
    principal: PrincipalDep,
    all: Annotated[  # noqa: A002
        bool, Query(description="Cancel every waiting job if no filter is given. Default: false.")
    ] = False,
) -> PurgeView:
    """Cancel the waiting jobs of a model, an owner, a priority, or all that are named; up to 5000 in a call."""
    if filters == QueueFilter() and not all:
        message = "name a model, an owner or a priority, or send all=true to cancel every waiting job"
        raise InvalidRequest([FieldProblem("all", message, ["model", "owner", "priority", "all=true"])])
    purged = services.operations.purge(filters)
    named = {"model": filters.model, "owner": filters.owner, "priority": filters.priority}
    details = {f"of_{name}": str(value) for name, value in named.items() if value is not None}
    record_action(principal, "purge", cancelled=purged.cancelled, **details)
    return PurgeView(cancelled=purged.cancelled, has_more=purged.has_more)


class ReloadView(BaseModel):
    """The changes that this API process read from the catalogue file; the others follow within seconds."""

    models: list[str] = Field(description="Ids of all models now.")
    added: list[str] = Field(description="Rows that are new: `ID`, `lora:ID` or `controlnet:ID`.")
    removed: list[str] = Field(description="Rows that are gone; their waiting jobs fail.")
    changed: list[str] = Field(description="Rows that differ, and are used as they were until a restart.")


@router.post("/models/reload")
def reload_models(services: ServicesDep, principal: PrincipalDep) -> ReloadView:
    """Read the catalogue file now; processes look every two seconds anyway. An invalid file changes nothing."""
    try:
        changes = services.catalogue_reload.refresh()
    except CatalogueError as error:
        raise InvalidRequest([FieldProblem("catalogue", str(error))]) from None
    record_action(principal, "reload catalogue", added=len(changes.added), removed=len(changes.removed))
    models = [row.id for row in services.catalogue.models]
    return ReloadView(models=models, **{name: list(rows) for name, rows in vars(changes).items()})


@router.get("/holds")
def list_holds(services: ServicesDep) -> HoldsView:
    """List the models that are paused, and the workers that are drained."""
    return _holds(services)


_Model = Annotated[
    str | None,
    Query(max_length=200, description="Only this model, by its id. Default: all models."),
    NULL_IS_ABSENT,
]


@router.post("/pause", responses=problems(404))
def pause_models(services: ServicesDep, principal: PrincipalDep, model: _Model = None) -> HoldsView:
    """Stop workers from beginning jobs of a model, or of any; running jobs go on, and new ones wait."""
    if model is not None:
        _require_model(services, model)
    services.operations.pause(model or ALL_MODELS, principal.key_id)
    record_action(principal, "pause", of_model=model or "all")
    return _holds(services)


@router.post("/resume")
def resume_models(services: ServicesDep, principal: PrincipalDep, model: _Model = None) -> HoldsView:
    """End a pause of the same model, or of all models. Idempotent; a model paused by itself stays paused."""
    if services.operations.resume(model or ALL_MODELS):
        record_action(principal, "resume", of_model=model or "all")
    return _holds(services)


_WorkerId = Annotated[str, Path(description="Id of the worker, as `GET /v1/workers` lists it.")]


@router.post("/workers/{id}/drain", responses=problems(404))
def drain_worker(id: _WorkerId, services: ServicesDep, principal: PrincipalDep) -> HoldsView:
    """Stop a worker from beginning jobs. Once its running jobs have ended, stopping it delays none."""
    services.operations.drain(id, principal.key_id)
    record_action(principal, "drain worker", worker=id)
    return _holds(services)


@router.post("/workers/{id}/undrain")
def undrain_worker(id: _WorkerId, services: ServicesDep, principal: PrincipalDep) -> HoldsView:
    """Let a drained worker take jobs again. Idempotent."""
    if services.operations.undrain(id):
        record_action(principal, "undrain worker", worker=id)
    return _holds(services)


def _require_model(services: Services, model: str) -> None:
    """Check that a model is in the catalogue, or that jobs of it wait."""
    with redis_errors_are_unavailable():
        waits = bool(find_queues(services.queue.connection, QueueFilter(model=model)))
    if not waits:
        services.catalogue.model(model)


def _holds(services: Services) -> HoldsView:
    operations = services.operations
    return HoldsView(
        paused=[_hold(hold) for hold in operations.paused()],
        drained=[_hold(hold) for hold in operations.drained()],
    )


def _hold(hold: Hold) -> HoldView:
    return HoldView(name=hold.name, since=datetime.fromtimestamp(hold.since, UTC), api_key=hold.by)


def _read_cursor(text: str) -> QueueName:
    try:
        return QueueName.read_cursor(text)
    except ValueError:
        raise InvalidRequest(
            [FieldProblem("cursor", "is not a `next_cursor` of this list; leave it out for the first page")]
        ) from None
