"""The route by which operators see the API keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from app.dependencies.access import ADMINS_ONLY, LIST_LIMITED
from app.dependencies.queries import NULL_IS_ABSENT, null_is_default_limit
from app.dependencies.services import ServicesDep
from app.openapi.routes import problems
from contracts.auth.api_keys import Key, Scope
from contracts.requests.schema import Priority
from contracts.views.lists import ListView

router = APIRouter(
    prefix="/v1/admin",
    tags=["admin"],
    dependencies=[ADMINS_ONLY, LIST_LIMITED],
    responses=problems(403, 422, 429, 503),
)


class KeyView(BaseModel):
    """An API key, without its secret."""

    id: str = Field(description="Id of the key.")
    name: str = Field(description="Name of the key, for people.")
    owner: str = Field(description="Owner of its jobs.")
    scopes: list[Scope] = Field(description="What it may do.")
    calls_per_minute: int | None = Field(description="Maximum calls a minute; null: no limit.")
    max_jobs: int | None = Field(description="Maximum jobs waiting and running at once; null: no limit.")
    per_day: dict[str, int] = Field(
        description="Maximum use by its jobs on one day (UTC): `images`, `image_steps`, `pixels`, "
        "`device_seconds`, `joules`; those left out have no limit."
    )
    highest_priority: Priority = Field(description="Highest priority that its jobs may have.")
    created_at: AwareDatetime = Field(description="When it was created.")
    last_used_at: AwareDatetime | None = Field(description="When it was last used, to the minute; null: never.")
    revoked_at: AwareDatetime | None = Field(description="When it was revoked; null: it is valid.")


class KeyList(ListView[KeyView]):
    """A page of the API keys, the oldest first."""


@router.get("/keys")
def list_keys(
    services: ServicesDep,
    limit: Annotated[
        int,
        Query(ge=1, le=1000, description="Maximum number of keys in the answer."),
        null_is_default_limit(100, 1000),
    ] = 100,
    cursor: Annotated[
        int | None,
        Query(ge=0, le=2**31, description="`next_cursor` of the previous page. Default: the first page."),
        NULL_IS_ABSENT,
    ] = None,
) -> KeyList:
    """List the API keys, revoked ones included, with their last use; nobody can see a key's secret again."""
    start = cursor or 0
    found = services.api_keys.find_all(start, limit + 1)
    has_more = len(found) > limit
    return KeyList(
        data=[_view(one) for one in found[:limit]],
        has_more=has_more,
        next_cursor=str(start + limit) if has_more else None,
    )


def _view(key: Key) -> KeyView:
    return KeyView(
        **key.model_dump(exclude={"sha256", "scopes", "created_at", "last_used_at", "revoked_at"}),
        scopes=sorted(key.scopes),
        created_at=datetime.fromtimestamp(key.created_at, UTC),
        last_used_at=_time(key.last_used_at),
        revoked_at=_time(key.revoked_at),
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
