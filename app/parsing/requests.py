"""Parses bodies into the requests of `contracts/requests/schema.py`, strictly and once, and words the errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Generic, Self, TypeVar, Union, cast

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json

from app.parsing.field_names import word_unknown_field
from app.parsing.json_bodies import check_json, invalid_json, without_nulls
from app.parsing.partial_requests import agreed, requests_like
from app.parsing.schemas import allowed_at
from app.wording import word_error
from contracts.catalogue.families import Task
from contracts.errors import MAX_PROBLEMS, FieldProblem, InvalidRequest
from contracts.requests.schema import REQUESTS, JobRequest

_AnyModel = TypeVar("_AnyModel", bound=BaseModel)
_Ours = TypeVar("_Ours", bound=BaseModel)
_ANY_TASK: TypeAdapter[JobRequest] = TypeAdapter(
    Annotated[Union[tuple(REQUESTS.values())], Field(discriminator="task")]  # type: ignore[arg-type]  # noqa: UP007
)

_ANY_FIELDS = frozenset[str]().union(*(kind.model_fields for kind in REQUESTS.values()))


@dataclass(frozen=True)
class Reading(Generic[_AnyModel]):
    """Result of reading a body.

    Attributes:
        requests: one; or, where something is wrong with the body, several that agree with the rest of it, or none.
        problems: what is wrong, up to `MAX_PROBLEMS`; there are `count` in all.
        made_up: fields of `requests` that the body does not have.
    """

    requests: tuple[_AnyModel, ...]
    problems: tuple[FieldProblem, ...] = ()
    count: int = 0
    made_up: frozenset[str] = frozenset()

    def with_problems(self, find: Callable[[_AnyModel], Sequence[FieldProblem]]) -> Self:
        """The same, with the problems that all of the requests have."""
        found = agreed([find(request) for request in self.requests], self.made_up)
        return replace(self, problems=(*self.problems, *found), count=self.count + len(found))

    def translated(
        self, ours: Sequence[Reading[_Ours]], more: Sequence[Sequence[FieldProblem]] | None = None
    ) -> Reading[_Ours]:
        """The reading of what each of the requests is translated into, with the problems of both.

        Args:
            more: further problems of each translation.
        """
        further = [()] * len(ours) if more is None else more
        found = [(*problems, *reading.problems) for problems, reading in zip(further, ours, strict=True)]
        problems = (*self.problems, *agreed(found, self.made_up))
        if not problems:
            return ours[0]
        requests = tuple(request for reading in ours for request in reading.requests)
        made_up = self.made_up.union(*(reading.made_up for reading in ours))
        return Reading(requests, problems, max(self.count, len(problems)), made_up)

    def require(self) -> _AnyModel:
        """The request.

        Raises:
            InvalidRequest: with every problem found.
        """
        if self.problems:
            raise InvalidRequest(self.problems, self.count)
        return self.requests[0]


def read(kind: type[_AnyModel], raw: bytes) -> Reading[_AnyModel]:
    """Read a JSON body as a request of this kind; a null counts as absent. Strict: "64" is not a number.

    Raises:
        BodyTooLarge: as `check_json` says.
        UnreadableBody: the body is not JSON.
        InvalidRequest: as `check_json` says, or the body is not an object.
    """
    check_json(raw, kind.model_fields)
    return read_checked(kind, raw)


def read_checked(kind: type[_AnyModel], raw: bytes) -> Reading[_AnyModel]:
    """As `read`, for a body whose limits were checked before something bounded by itself was added to it."""
    raw = without_nulls(raw)
    try:
        return Reading((kind.model_validate_json(raw, strict=True),))
    except ValidationError as error:
        return _refused(kind, error, from_json_or_none(raw))


def read_any(raw: bytes, more_tasks: tuple[str, ...] = ()) -> Reading[JobRequest]:
    """Read a request of the kind that its field `task` selects; raises as `read`, and if no task has this name.

    Args:
        more_tasks: that the caller reads itself, for the error that names all of them.
    """
    check_json(raw, _ANY_FIELDS)
    task = task_of(raw)
    if task in REQUESTS:
        return cast("Reading[JobRequest]", read(REQUESTS[Task(task)], raw))
    return Reading((parse_any(raw, more_tasks),))


def task_of(raw: bytes) -> str:
    """The task that a body of `POST /v1/jobs` names; empty where it names none."""
    body = from_json_or_none(raw)
    task = body.get("task") if isinstance(body, dict) else None
    return task if isinstance(task, str) else ""


def read_values(kind: type[_AnyModel], values: Mapping[str, Any]) -> Reading[_AnyModel]:
    """As `read`, for values that were parsed before and values derived from them."""
    try:
        return Reading((kind.model_validate(values),))
    except ValidationError as error:
        return _refused(kind, error, values)


def from_json_or_none(raw: bytes) -> object:
    """The JSON in a body; None where it is not JSON, which parsing a request words."""
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError:
        return None


def _refused(kind: type[_AnyModel], error: ValidationError, body: object) -> Reading[_AnyModel]:
    refusal = _refusal(kind, error)
    if not isinstance(refusal, InvalidRequest):
        raise refusal
    paths = [item["loc"] for item in error.errors(include_url=False, include_input=False)]
    requests, made_up = requests_like(kind, body, paths) if len(paths) <= MAX_PROBLEMS else ((), frozenset())
    return Reading(requests, refusal.problems, refusal.count, made_up)


def parse(kind: type[_AnyModel], raw: bytes) -> _AnyModel:
    """Parse a JSON body as a request of this kind; a null counts as absent. Strict: "64" is not a number.

    Raises:
        BodyTooLarge: as `check_json` says.
        UnreadableBody: the body is not JSON.
        InvalidRequest: with every problem found, up to `MAX_PROBLEMS`.
    """
    return read(kind, raw).require()


def parse_any(raw: bytes, more_tasks: tuple[str, ...] = ()) -> JobRequest:
    """Parse a request of the kind that its field `task` selects; raises as `parse`."""
    check_json(raw, _ANY_FIELDS)
    try:
        return _ANY_TASK.validate_json(without_nulls(raw), strict=True)
    except ValidationError as error:
        raise _tagged_refusal(error, more_tasks) from None


def build(kind: type[_AnyModel], fields: Mapping[str, Any]) -> _AnyModel:
    """Make a request out of values that were parsed before and values derived from them.

    Raises:
        InvalidRequest: with every problem found.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _refusal(kind, error) from None


def _refusal(kind: type[BaseModel], error: ValidationError, tag: str | None = None) -> Exception:
    """Return the domain's error for one of pydantic, whose paths start with `tag` if there is one."""
    found = error.errors(include_url=False)
    if found[0]["type"] == "json_invalid":
        is_empty = not found[0]["input"].strip()
        return invalid_json("it is empty; send an object, such as {…}" if is_empty else found[0]["ctx"]["error"])
    count = len(found)
    shown = found[:MAX_PROBLEMS]
    if tag is not None:
        shown = [cast("ErrorDetails", {**item, "loc": item["loc"][1:]}) for item in shown]
    return InvalidRequest([_problem(kind, item) for item in shown if not _is_echo(item, shown)], count)


def _tagged_refusal(error: ValidationError, more_tasks: tuple[str, ...]) -> Exception:
    """As `_refusal`, for a request whose kind is selected by its own `task`."""
    first = error.errors(include_url=False)[0]
    if first["type"] in ("union_tag_not_found", "union_tag_invalid"):
        tasks = [*(task.value for task in Task), *more_tasks]
        if "ctx" in first:
            context = {**first["ctx"], "expected_tags": ", ".join(f"'{task}'" for task in tasks)}
            first = cast("ErrorDetails", {**first, "ctx": context})
        return InvalidRequest([FieldProblem("task", _message(JobRequest, first), tasks)])
    if not first["loc"]:
        return _refusal(JobRequest, error)
    tag = str(first["loc"][0])
    return _refusal(REQUESTS[Task(tag)], error, tag)


def _is_echo(item: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Whether a list is called too short only because pydantic does not count its invalid entries."""
    path = item["loc"]
    inside = (other["loc"] for other in found if len(other["loc"]) > len(path))
    return item["type"] == "too_short" and any(other[: len(path)] == path for other in inside)


def _problem(kind: type[BaseModel], item: ErrorDetails) -> FieldProblem:
    path = item["loc"]
    return FieldProblem(
        field=".".join(map(str, path)) or "body",
        message=_message(kind, item),
        allowed=allowed_at(kind, path) if path else None,
    )


def _message(kind: type[BaseModel], item: ErrorDetails) -> str:
    if item["type"] == "extra_forbidden":
        return word_unknown_field(kind, item["loc"])
    return word_error(item)
