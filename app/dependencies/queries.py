"""What lists are asked for in the query: filters, pages. Refuses what it does not know; lists nothing itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request

from contracts.catalogue.families import Task
from contracts.errors import FieldProblem, InvalidRequest
from contracts.queue.listing import Cursor, Filter
from contracts.queue.records import JobState

_METADATA = "metadata."
_KNOWN = ("status", "model", "task", "limit", "cursor")


@dataclass(frozen=True)
class PageQuery:
    """How many, and after which."""

    limit: int
    after: Cursor | None


async def _filter(
    request: Request,
    status: Annotated[JobState | None, Query(description="only jobs in this state")] = None,
    model: Annotated[str | None, Query(description="only jobs of this model")] = None,
    task: Annotated[Task | None, Query(description="only jobs of this task")] = None,
) -> Filter:
    """`metadata.KEY=VALUE`, any number of them, beside the named ones."""
    _refuse_strangers(request)
    metadata = {
        name.removeprefix(_METADATA): value
        for name, value in request.query_params.items()
        if name.startswith(_METADATA)
    }
    return Filter(status, model, task, metadata)


def _refuse_strangers(request: Request) -> None:
    """Nothing is silently ignored."""
    problems = []
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in _KNOWN and not name.startswith(_METADATA):
            problems.append(FieldProblem(name, "is no filter of this list", [*_KNOWN, f"{_METADATA}KEY"]))
        elif count > 1:
            problems.append(FieldProblem(name, f"stands {count} times; name it once"))
    if problems:
        raise InvalidRequest(problems)


async def _page(
    limit: Annotated[int, Query(ge=1, le=100, description="how many at the most")] = 20,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
) -> PageQuery:
    try:
        return PageQuery(limit, None if cursor is None else Cursor.read(cursor))
    except ValueError:
        raise InvalidRequest([FieldProblem("cursor", "is no next_cursor of this list")]) from None


TheFilter = Annotated[Filter, Depends(_filter)]
ThePage = Annotated[PageQuery, Depends(_page)]
