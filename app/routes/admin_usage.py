"""Routes by which operators see what the jobs of each API key have used, and the keys."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from app.dependencies.access import ADMINS_ONLY, LIST_LIMITED
from app.dependencies.queries import NULL_IS_ABSENT
from app.dependencies.services import ServicesDep
from app.openapi.routes import problems
from contracts.auth.api_keys import Key, Scope
from contracts.errors import FieldProblem, InvalidRequest
from contracts.job_view import ListView
from contracts.queue.usage import KEPT_DAYS, read_usage, today
from contracts.requests.schema import Priority

router = APIRouter(
    prefix="/v1/admin",
    tags=["admin"],
    dependencies=[ADMINS_ONLY, LIST_LIMITED],
    responses=problems(403, 422, 429, 503),
)
#: Days that are shown where the first one is not named, the last one included.
_DEFAULT_DAYS = 7


class UsageView(BaseModel):
    """What the jobs of one API key have used on one day (UTC)."""

    day: date = Field(description="The day, in UTC.")
    api_key: str = Field(
        description="Id of the API key; `anonymous`: calls without a key; empty: jobs of an earlier release."
    )
    jobs: int = Field(description="Jobs that ended on this day, in whichever state.")
    images: int = Field(description="Images of those that completed.")
    image_steps: int = Field(description="Denoising steps of these images, all together.")
    pixels: int = Field(description="Pixels of these images, all together.")
    device_seconds: float = Field(
        description="Seconds of workers' time, those of attempts that failed or were cancelled included."
    )


class UsageList(ListView[UsageView]):
    """A page of usage, by day and API key."""


class KeyView(BaseModel):
    """An API key, without its secret."""

    id: str = Field(description="Id of the key.")
    name: str = Field(description="Name of the key, for people.")
    owner: str = Field(description="Owner of its jobs.")
    scopes: list[Scope] = Field(description="What it may do.")
    calls_per_minute: int | None = Field(description="Maximum of calls a minute; null: no limit.")
    max_jobs: int | None = Field(description="Maximum of jobs that wait and run; null: no limit.")
    highest_priority: Priority = Field(description="Highest priority that its jobs may have.")
    created_at: AwareDatetime = Field(description="When it was created.")
    last_used_at: AwareDatetime | None = Field(description="When it was last used, to the minute; null: never.")
    revoked_at: AwareDatetime | None = Field(description="When it was revoked; null: it is valid.")


class KeyList(ListView[KeyView]):
    """A page of the API keys, the oldest first."""


@router.get("/usage")
def list_usage(
    services: ServicesDep,
    first: Annotated[
        date | None,
        NULL_IS_ABSENT,
        Query(alias="from", description=f"First day, in UTC. Default: {_DEFAULT_DAYS - 1} days before the last."),
    ] = None,
    last: Annotated[
        date | None, NULL_IS_ABSENT, Query(alias="to", description="Last day, in UTC. Default: today.")
    ] = None,
    key: Annotated[
        str | None,
        NULL_IS_ABSENT,
        Query(max_length=64, description="Only of this API key, by its id. Default: any."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of rows in the answer.")] = 100,
    cursor: Annotated[
        str | None,
        NULL_IS_ABSENT,
        Query(max_length=100, description="`next_cursor` of the previous page. Default: the first page."),
    ] = None,
) -> UsageList:
    """List what the jobs of each API key have used, by day; the service knows the last 92 days."""
    redis = services.queue.connection
    last = last or today(redis)
    first = first or last - timedelta(days=min(_DEFAULT_DAYS - 1, last.toordinal() - 1))
    if not 0 <= (last - first).days < KEPT_DAYS:
        message = f"must be at most {KEPT_DAYS} days, the first one first; got {first} to {last}"
        raise InvalidRequest([FieldProblem("from", message)])
    rows = read_usage(redis, first, last, key)
    if cursor is not None:
        day, _, after = cursor.partition("/")
        rows = [row for row in rows if (row.day.isoformat(), row.api_key) > (day, after)]
    page, has_more = rows[:limit], len(rows) > limit
    return UsageList(
        data=[UsageView(**vars(row)) for row in page],
        has_more=has_more,
        next_cursor=f"{page[-1].day}/{page[-1].api_key}" if has_more else None,
    )


@router.get("/keys")
def list_keys(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of keys in the answer.")] = 100,
    cursor: Annotated[
        int | None,
        NULL_IS_ABSENT,
        Query(ge=0, le=2**31, description="`next_cursor` of the previous page. Default: the first page."),
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
