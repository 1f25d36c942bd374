"""What the jobs of API keys have used, by day and model: callers see those of their key, operators all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, BeforeValidator, Field

from app.dependencies.access import ADMINS_ONLY, LIST_LIMITED, PrincipalDep
from app.dependencies.queries import NULL_IS_ABSENT, null_is_default_limit
from app.dependencies.services import ServicesDep
from app.openapi.routes import problems
from contracts.errors import FieldProblem, InvalidRequest
from contracts.queue.usage.counts import KEPT_DAYS, read_usage, today
from contracts.views.lists import ListView

router = APIRouter(prefix="/v1", dependencies=[LIST_LIMITED], responses=problems(403, 422, 429, 503))
#: Days that are shown where the first one is not named, the last one included.
_DEFAULT_DAYS = 7


def _check_written_out(day: Any) -> Any:
    """Pydantic also takes a number for a day: so many seconds after 1970."""
    if isinstance(day, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", day, re.ASCII):
        raise ValueError(f"must be a day as YYYY-MM-DD, got {day[:40]!r}")
    return day


_IS_WRITTEN_OUT = BeforeValidator(_check_written_out)


class UsageView(BaseModel):
    """Use by the jobs of one API key with one model on one day (UTC)."""

    day: date = Field(description="The day, in UTC.")
    api_key: str = Field(
        description="Id of the API key; `anonymous`: calls without a key; empty: jobs of an earlier release."
    )
    model: str = Field(description="Id of the model; empty: jobs that an earlier release counted.")
    jobs: int = Field(description="Jobs that ended on this day, in any state.")
    images: int = Field(description="Images of those that completed.")
    image_steps: int = Field(description="Denoising steps of these images, all together.")
    pixels: int = Field(description="Pixels of these images, all together.")
    device_seconds: float = Field(
        description="Worker time in seconds, including attempts that failed or were cancelled."
    )
    joules: float = Field(
        description="Energy that devices drew in these seconds, in joules: 3.6 million are a kilowatt hour."
    )
    estimated_joules: float = Field(
        description="The part of them that is estimated, because no counter could be read."
    )


class UsageList(ListView[UsageView]):
    """A page of usage, by day, API key and model."""


@dataclass(frozen=True)
class Days:
    """Days that a caller asks about, the last one included."""

    first: date
    last: date


def read_days(
    services: ServicesDep,
    first: Annotated[
        date | None,
        Query(alias="from", description=f"First day, in UTC. Default: {_DEFAULT_DAYS - 1} days before the last."),
        _IS_WRITTEN_OUT,
        NULL_IS_ABSENT,
    ] = None,
    last: Annotated[
        date | None,
        Query(alias="to", description="Last day, in UTC. Default: today."),
        _IS_WRITTEN_OUT,
        NULL_IS_ABSENT,
    ] = None,
) -> Days:
    """Return the days that a query names."""
    last = last or today(services.queue.connection)
    first = first or last - timedelta(days=min(_DEFAULT_DAYS - 1, last.toordinal() - 1))
    if not 0 <= (last - first).days < KEPT_DAYS:
        message = f"must be at most {KEPT_DAYS} days, the first one first; got {first} to {last}"
        raise InvalidRequest([FieldProblem("from", message)])
    return Days(first, last)


DaysDep = Annotated[Days, Depends(read_days)]


@router.get("/usage", tags=["jobs"])
def show_usage(services: ServicesDep, principal: PrincipalDep, days: DaysDep) -> UsageList:
    """Show what the jobs of your API key have used, by day and model; the service knows the last 92 days."""
    rows = read_usage(services.queue.connection, days.first, days.last, principal.key_id)
    return UsageList(data=[UsageView(**vars(row)) for row in rows], has_more=False, next_cursor=None)


@router.get("/admin/usage", tags=["admin"], dependencies=[ADMINS_ONLY])
def list_usage(
    services: ServicesDep,
    days: DaysDep,
    key: Annotated[
        str | None,
        Query(max_length=64, description="Only of this API key, by its id. Default: any."),
        NULL_IS_ABSENT,
    ] = None,
    limit: Annotated[
        int,
        Query(ge=1, le=1000, description="Maximum number of rows in the answer."),
        null_is_default_limit(100, 1000),
    ] = 100,
    cursor: Annotated[
        str | None,
        Query(max_length=300, description="`next_cursor` of the previous page. Default: the first page."),
        NULL_IS_ABSENT,
    ] = None,
) -> UsageList:
    """List what the jobs of each API key have used, by day and model; the service knows the last 92 days."""
    rows = read_usage(services.queue.connection, days.first, days.last, key)
    if cursor is not None:
        last = tuple([*cursor.split("/", 2), "", ""][:3])
        rows = [row for row in rows if (row.day.isoformat(), row.api_key, row.model) > last]
    page, has_more = rows[:limit], len(rows) > limit
    return UsageList(
        data=[UsageView(**vars(row)) for row in page],
        has_more=has_more,
        next_cursor=f"{page[-1].day}/{page[-1].api_key}/{page[-1].model}" if has_more else None,
    )
