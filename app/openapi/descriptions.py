"""Completes what schemas say of their fields with what is declared beside them: range, default, model families.

So a bound, a default or a family's field is written once, where it is declared. Knows no routes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from app.parsing.schemas import NULL, Schema, allowed_in, dereference
from contracts.catalogue.families import FAMILIES, MODE_FIELDS, Family

_REFERENCE = "#/components/schemas/"
#: What a schema says about a field beside the values that it allows.
_ABOUT = frozenset({"title", "description", "examples", "deprecated"})


def complete_requests(schemas: dict[str, Schema], kinds: Sequence[type[BaseModel]]) -> None:
    """Complete the descriptions in the schemas of these requests, and of the objects inside them.

    Their `default` becomes a part of the description: generators for TypeScript take a field that has one for a
    field that is always there, so that a request would have to name them all. Optional fields may be null, which
    counts as absent in every JSON body.
    """
    whole = {"$defs": schemas}
    for name in sorted(_reachable(schemas, [kind.__name__ for kind in kinds])):
        schema = schemas[name]
        properties, required = schema.get("properties", {}), schema.get("required", ())
        for field, part in properties.items():
            part["description"] = _complete(whole, field, part, is_required=field in required)
        _remove_defaults(schema)
        properties |= {field: _or_null(part) for field, part in properties.items() if field not in required}


def complete_parameter(parameter: Schema, schemas: dict[str, Schema]) -> None:
    """Complete the description of a parameter of a path, a query or a header."""
    part = {"description": parameter.get("description", ""), **parameter["schema"]}
    is_required = parameter.get("required", False)
    parameter["description"] = _complete({"$defs": schemas}, parameter["name"], part, is_required=is_required)


def _complete(whole: Schema, field: str, part: Schema, *, is_required: bool) -> str:
    """The description of a field with its families, range and default; by convention the default comes last."""
    own, default, rest = part.get("description", "").partition("Default")
    families = [family.id for family in FAMILIES.values() if field in _mode_fields(family)]
    sentences = [own.strip()]
    others = [id for id in FAMILIES if id not in families]
    if field in MODE_FIELDS and others:
        are_few = len(others) < len(families) / 2
        sentences.append(
            f"Not for models of the {_listed(others)}."
            if are_few
            else f"Only for models of the {_listed(families)}."
        )
    allowed = allowed_in(dereference(whole, part))
    if isinstance(allowed, str):
        sentences.append(f"{'Length' if allowed.endswith(('characters', 'entries')) else 'Range'}: {allowed}.")
    if default:
        sentences.append(default + rest)
    elif not is_required and "default" in part:
        sentences.append(f"Default: {_text(part['default'])}.")
    return " ".join(sentences)


def _listed(families: Sequence[str]) -> str:
    *others, last = families
    return f"families {', '.join(others)} and {last}" if others else f"family {last}"


def _mode_fields(family: Family) -> frozenset[str]:
    """The fields that any mode of its checkpoints uses."""
    rows = (family, *family.other_checkpoints.values())
    return frozenset().union(*(fields for row in rows for fields in row.modes.values()))


def _text(default: object) -> str:
    if default in (None, [], {}, ""):
        return "none"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _or_null(part: Schema) -> Schema:
    """The schema of a field that may be null; what is said about the field stays beside the types."""
    branches = part.get("anyOf", ())
    if NULL in branches:
        return part
    if branches:
        return {**part, "anyOf": [*branches, NULL]}
    about = {name: value for name, value in part.items() if name in _ABOUT}
    return {"anyOf": [{name: value for name, value in part.items() if name not in _ABOUT}, NULL], **about}


def remove_unused(document: Schema) -> None:
    """Remove the schemas that nothing refers to: parts of types that the document describes in other words."""
    schemas = document["components"]["schemas"]
    outside = {name: part for name, part in document.items() if name != "components"}
    used = _reachable(schemas, _references(outside))
    document["components"]["schemas"] = {name: schema for name, schema in schemas.items() if name in used}


def _reachable(schemas: dict[str, Schema], names: Iterable[str]) -> set[str]:
    """These schemas, and all that they refer to."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(schemas[name])
    return found


def _references(part: Any) -> Iterator[str]:
    """Names of the schemas that a part of the document refers to."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str) and part["$ref"].startswith(_REFERENCE):
            yield part["$ref"].removeprefix(_REFERENCE)
        for inner in part.values():
            yield from _references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _references(inner)


def _remove_defaults(schema: Schema) -> None:
    for part in schema.get("properties", {}).values():
        part.pop("default", None)
