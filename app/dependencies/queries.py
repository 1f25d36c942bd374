"""Providers of the query parameters of lists: filters and pages. Unknown parameters are refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Query, Request
from pydantic import BeforeValidator

from contracts.catalogue.families import Task
from contracts.errors import FieldProblem, InvalidRequest
from contracts.jobs.records import JobState
from contracts.queue.listing import Cursor, Filter

_METADATA = "metadata."
_DEFAULT_LIMIT = 20
#: What clients write for a parameter that they do not set: `URLSearchParams` turns null into this word.
_NULL = "null"
NULL_IS_ABSENT = BeforeValidator(lambda value: None if value == _NULL else value)
_NULL_IS_DEFAULT_LIMIT = BeforeValidator(lambda value: _DEFAULT_LIMIT if value == _NULL else value)
_KNOWN = ("status", "model", "task", "limit", "cursor", "include")


@dataclass(frozen=True)
class PageQuery:
    """The page of a list that is asked for."""

    limit: int
    after: Cursor | None


async def _filter(
    request: Request,
    status: Annotated[
        JobState | None, NULL_IS_ABSENT, Query(description="Only jobs with this status. Default: any.")
    ] = None,
    model: Annotated[
        str | None, NULL_IS_ABSENT, Query(description="Only jobs of this model, by its id. Default: any.")
    ] = None,
    task: Annotated[
        Task | None, NULL_IS_ABSENT, Query(description="Only jobs of this task. Default: any.")
    ] = None,
) -> Filter:
    """Also reads any number of parameters `metadata.KEY=VALUE`."""
    _refuse_unknown(request)
    metadata = {
        name.removeprefix(_METADATA): value
        for name, value in request.query_params.items()
        if name.startswith(_METADATA)
    }
    return Filter(status, model, task, metadata)


def _refuse_unknown(request: Request) -> None:
    """Refuse unknown and repeated parameters rather than ignore them."""
    problems = []
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in _KNOWN and not name.startswith(_METADATA):
            problems.append(FieldProblem(name, "unknown parameter", [*_KNOWN, f"{_METADATA}KEY"]))
        elif count > 1:
            problems.append(FieldProblem(name, f"given {count} times; give it once"))
    if problems:
        raise InvalidRequest(problems)


async def _page(
    limit: Annotated[
        int, _NULL_IS_DEFAULT_LIMIT, Query(ge=1, le=100, description="Maximum number of jobs in the answer.")
    ] = _DEFAULT_LIMIT,
    cursor: Annotated[
        str | None,
        NULL_IS_ABSENT,
        Query(description="`next_cursor` of the previous page. Default: the first page."),
    ] = None,
) -> PageQuery:
    try:
        return PageQuery(limit, None if cursor is None else Cursor.read(cursor))
    except ValueError:
        raise InvalidRequest([FieldProblem("cursor", "not a `next_cursor` of this list")]) from None


_Include = Annotated[
    Literal["receipt"] | None,
    NULL_IS_ABSENT,
    Query(description="`receipt`: with the receipts of finished jobs, which are long. Default: without them."),
]


async def _include_receipts(include: _Include = None) -> bool:
    return include is not None


#: whether the client asks for the receipts of the jobs in a list
IncludeReceiptsDep = Annotated[bool, Depends(_include_receipts)]
FilterDep = Annotated[Filter, Depends(_filter)]
PageDep = Annotated[PageQuery, Depends(_page)]
