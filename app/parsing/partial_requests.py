"""Requests made from a refused body, so that rules between its fields are checked too.

An invalid field gets values from both ends of its range: what breaks a rule with either breaks it whatever
the field was meant to be, and only that is told. Words no errors, and checks no rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.parsing.schemas import range_at
from contracts.errors import FieldProblem

AnyModel = TypeVar("AnyModel", bound=BaseModel)
Path = tuple[str | int, ...]

#: What required text is taken to be, and fields whose presence decides which rules apply.
_UNKNOWN = "?"
_TEXTS = frozenset({"prompt", "image", "mask_image", "mask", "control_image"})
#: Lists of objects, and the field that each object must have.
_LISTS = {"loras": "name", "controls": "controlnet", "ip_adapters": "name", "textual_inversions": "name"}
#: Lists of such text.
_TEXT_LISTS = frozenset({"references"})
#: Without these it is not known which rules apply.
_DECISIVE = frozenset({"model", "task", "refiner", "cascade", "hires", "override_settings", "alwayson_scripts"})
_MAX_ROUNDS = 4


def requests_like(
    kind: type[AnyModel], body: object, found: Iterable[Path]
) -> tuple[tuple[AnyModel, ...], frozenset[str]]:
    """Requests that agree with a body in everything but what is wrong with it, and the fields that are made up.

    Args:
        body: JSON, parsed.
        found: the paths of what is wrong.
    """
    paths = _innermost(found)
    if not isinstance(body, dict) or any(not path or path[0] in _DECISIVE for path in paths):
        return (), frozenset()
    made_up: set[str] = set()
    requests = [_complete(kind, body, paths, end, made_up) for end in (0, 1)]
    return tuple(request for request in requests if request is not None), frozenset(made_up)


def agreed(found: Sequence[Sequence[FieldProblem]], made_up: Iterable[str] = ()) -> list[FieldProblem]:
    """The problems that all of several requests have, except with fields that are made up."""
    first, *others = found or [[]]
    prefixes = tuple(f"{path}." for path in made_up)
    return [
        problem
        for problem in first
        if all(problem in other for other in others) and not f"{problem.field}.".startswith(prefixes)
    ]


def _complete(
    kind: type[AnyModel], body: dict[str, Any], paths: Iterable[Path], end: int, made_up: set[str]
) -> AnyModel | None:
    """The request with values from this end of the ranges, 0 or 1; None where it cannot be completed."""
    fields = dict(body)
    for name in _LISTS.keys() & fields.keys():
        if isinstance(fields[name], list):
            fields[name] = [dict(entry) if isinstance(entry, dict) else entry for entry in fields[name]]
    for _ in range(_MAX_ROUNDS):
        for path in paths:
            _replace(kind, fields, path, end, made_up)
        try:
            return kind.model_validate(fields)
        except ValidationError as error:
            paths = _innermost(item["loc"] for item in error.errors(include_url=False, include_input=False))
    return None


def _innermost(found: Iterable[Path]) -> list[Path]:
    """The paths without those around others: a list with a wrong entry is called too short as well."""
    paths = list(found)
    return [path for path in paths if not any(path == other[: len(path)] != other for other in paths)]


def _replace(kind: type[BaseModel], fields: dict[str, Any], path: Path, end: int, made_up: set[str]) -> None:
    """Replace what is wrong at a path: by an end of its range, by text that is made up, or by nothing."""
    name = str(path[0])
    entries = fields.get(name)
    if name in _LISTS and len(path) > 1 and isinstance(entries, list) and int(path[1]) < len(entries):
        _replace_in_entry(kind, entries, path, end, made_up)
        return
    fields.pop(name, None)
    ends = range_at(kind, path[:1])
    if ends is not None:
        fields[name] = ends[end]
    elif name in _TEXTS and name in kind.model_fields:
        fields[name] = _UNKNOWN
        made_up.add(name)
    elif name in _TEXT_LISTS and name in kind.model_fields:
        fields[name] = [_UNKNOWN]
        made_up.add(name)
    elif name in _LISTS and name in kind.model_fields and kind.model_fields[name].is_required():
        fields[name] = [{_LISTS[name]: _UNKNOWN}]
        made_up.add(name)


def _replace_in_entry(kind: type[BaseModel], entries: list[Any], path: Path, end: int, made_up: set[str]) -> None:
    """Replace what is wrong in one entry of a list."""
    name, index = str(path[0]), int(path[1])
    required = _LISTS[name]
    if len(path) == 2 or not isinstance(entries[index], dict):
        entries[index] = {required: _UNKNOWN}
        made_up.add(f"{name}.{index}")
        return
    inner = str(path[2])
    entries[index].pop(inner, None)
    ends = range_at(kind, path[:3])
    if inner == required:
        entries[index][inner] = _UNKNOWN
        made_up.add(f"{name}.{index}")
    elif ends is not None:
        entries[index][inner] = ends[end]
    elif inner == "image":
        entries[index][inner] = _UNKNOWN
