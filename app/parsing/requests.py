"""Turns a body into a request of `contracts/tasks.py`, strictly; says what is wrong in terms of its fields."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.parsing.schemas import allowed_at
from contracts.catalogue.families import Task
from contracts.errors import FieldProblem, InvalidRequest, UnreadableBody
from contracts.requests.schema import REQUESTS, JobRequest

AnyRequest = TypeVar("AnyRequest", bound=BaseModel)


def parse(kind: type[AnyRequest], raw: bytes) -> AnyRequest:
    """Read a JSON body; "64" is no number and 1 is no boolean.

    Raises:
        UnreadableBody: no JSON.
        InvalidRequest: no request of this kind, with every problem found.
    """
    try:
        return kind.model_validate_json(raw, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            raise UnreadableBody(f"the body is no JSON: {found[0]['ctx']['error']}") from None
        raise InvalidRequest([_problem(kind, item) for item in found if not _is_echo(item, found)]) from None


def parse_any(raw: bytes) -> JobRequest:
    """Read a request whose `task` says of which kind it is; raises as `parse` does."""
    return parse(REQUESTS[parse(_Tasked, raw).task], raw)


class _Tasked(BaseModel):
    """Every request, as far as it says what it asks for."""

    task: Task


def _is_echo(item: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Whether a list is too short only because pydantic does not count its wrong entries."""
    path = item["loc"]
    inside = (other["loc"] for other in found if len(other["loc"]) > len(path))
    return item["type"] == "too_short" and any(other[: len(path)] == path for other in inside)


def _problem(kind: type[BaseModel], item: ErrorDetails) -> FieldProblem:
    path = item["loc"]
    return FieldProblem(
        field=".".join(map(str, path)) or "body",
        message=_message(item["type"], item["msg"]),
        allowed=allowed_at(kind, path) if path else None,
    )


def _message(what: str, said: str) -> str:
    match what:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is no field of this request"
        case "literal_error" | "enum":
            return "is none of the allowed values"
        case "model_type":
            return "must be a JSON object"
        case "tuple_type":
            return "must be a list"
        case "too_short":
            return "has too few entries"
        case "too_long":
            return "has too many entries"
    said = said.removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return said.replace("String should have", "must have", 1)
