"""Providers of query parameters: filters and pages of lists. Unknown parameters of any route are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant
from pydantic import BeforeValidator, Field

from contracts.errors import FieldProblem, InvalidRequest
from contracts.jobs.records import JobState
from contracts.queue.listing import Cursor, Filter
from contracts.queue.waiting_queues import QueueFilter
from contracts.requests.schema import Priority
from contracts.requests.task_parameters import JobTask

_METADATA = "metadata."
_DEFAULT_LIMIT = 20
#: What clients write for a parameter that they do not set: `URLSearchParams` turns null into this word.
_NULL = "null"
#: Name of a route -> prefix of parameters of which it takes any number.
_OPEN_PREFIXES = {"list_jobs": _METADATA, "list_all_jobs": _METADATA}


def null_is_absent(text: str | None) -> str | None:
    """Return a parameter's text, or None where it is the word for that."""
    return None if text == _NULL else text


def null_means(default: object, kind: Any) -> BeforeValidator:
    """Use a parameter's default if its text is `null`. Place it after `Query`, as below.

    Args:
        kind: type of the parameter, with its range, for the document, which says that null is allowed, too.
    """
    return BeforeValidator(lambda value: default if value == _NULL else value, json_schema_input_type=kind | None)


def null_is_default_limit(default: int, most: int) -> BeforeValidator:
    """The same for the number of entries of a page, from 1 to `most`."""
    return null_means(default, Annotated[int, Field(ge=1, le=most)])


#: Behind `Query`: in front of it, limits of length and range would be applied to None, which is a TypeError.
NULL_IS_ABSENT = BeforeValidator(null_is_absent)
_NULL_IS_DEFAULT_LIMIT = null_is_default_limit(_DEFAULT_LIMIT, 100)


@dataclass(frozen=True)
class PageQuery:
    """The page of a list that is asked for."""

    limit: int
    after: Cursor | None


async def _filter(
    request: Request,
    status: Annotated[
        JobState | None, Query(description="Only jobs with this status. Default: any."), NULL_IS_ABSENT
    ] = None,
    model: Annotated[
        str | None, Query(description="Only jobs of this model, by its id. Default: any."), NULL_IS_ABSENT
    ] = None,
    task: Annotated[
        JobTask | None, Query(description="Only jobs of this task. Default: any."), NULL_IS_ABSENT
    ] = None,
) -> Filter:
    """Also reads any number of parameters `metadata.KEY=VALUE`."""
    metadata = {
        name.removeprefix(_METADATA): value
        for name, value in request.query_params.items()
        if name.startswith(_METADATA)
    }
    return Filter(status, model, task, metadata=metadata)


async def _queue_filter(
    model: Annotated[
        str | None,
        Query(max_length=200, description="Only of this model, by its id. Default: any."),
        NULL_IS_ABSENT,
    ] = None,
    owner: Annotated[
        str | None, Query(max_length=64, description="Only of this owner. Default: any."), NULL_IS_ABSENT
    ] = None,
    priority: Annotated[
        Priority | None, Query(description="Only of this priority. Default: any."), NULL_IS_ABSENT
    ] = None,
) -> QueueFilter:
    return QueueFilter(model, owner, priority)


def refuse_unknown_parameters(request: Request) -> None:
    """Refuse parameters that the request's route does not have, and repeated ones, rather than ignore them.

    Raises:
        InvalidRequest: with each of them.
    """
    if not request.scope["query_string"]:
        return
    route = request.scope["route"]
    known, prefix = sorted(set(_names_of(route.dependant))), ""
    if route.name in _OPEN_PREFIXES:
        prefix = _OPEN_PREFIXES[route.name]
        known = sorted([*known, f"{prefix}KEY"])
    remedy = "; fields of a request go into its body" if request.method == "POST" else ""
    problems = []
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known and not (prefix and name.startswith(prefix)):
            message = f"is not a query parameter of this call; remove it{remedy}"
            problems.append(FieldProblem(name, message, known or "no query parameters"))
        elif count > 1:
            problems.append(FieldProblem(name, f"given {count} times; give it once"))
    if problems:
        raise InvalidRequest(problems)


def _names_of(dependant: Dependant) -> Iterator[str]:
    """Yield the query parameters that a route and its providers take."""
    yield from (field.alias for field in dependant.query_params)
    for provider in dependant.dependencies:
        yield from _names_of(provider)


async def _refuse_unknown(request: Request) -> None:
    refuse_unknown_parameters(request)


async def _page(
    limit: Annotated[
        int,
        Query(ge=1, le=100, description="Maximum number of jobs in the answer."),
        _NULL_IS_DEFAULT_LIMIT,
    ] = _DEFAULT_LIMIT,
    cursor: Annotated[
        str | None,
        Query(description="`next_cursor` of the previous page. Default: the first page."),
        NULL_IS_ABSENT,
    ] = None,
) -> PageQuery:
    try:
        return PageQuery(limit, None if cursor is None else Cursor.read(cursor))
    except ValueError:
        raise InvalidRequest(
            [FieldProblem("cursor", "is not a `next_cursor` of this list; leave it out for the first page")]
        ) from None


_Include = Annotated[
    Literal["receipt"] | None,
    Query(description="`receipt`: with the receipts of finished jobs, which are long. Default: without them."),
    NULL_IS_ABSENT,
]


async def _include_receipts(include: _Include = None) -> bool:
    return include is not None


#: for routes that need no principal; those of signed links check the query with the signature
KNOWN_PARAMETERS_ONLY = Depends(_refuse_unknown)
#: whether the client asks for the receipts of the jobs in a list
IncludeReceiptsDep = Annotated[bool, Depends(_include_receipts)]
FilterDep = Annotated[Filter, Depends(_filter)]
QueueFilterDep = Annotated[QueueFilter, Depends(_queue_filter)]
PageDep = Annotated[PageQuery, Depends(_page)]
