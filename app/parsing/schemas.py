"""JSON Schema of the requests: what a field allows, and what is left of a schema for one model.

Works on the schemas that pydantic writes for `contracts/tasks.py`; checks no request itself.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from math import gcd
from typing import Any

from pydantic import BaseModel

from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.catalogue.families import MODE_FIELDS, Mode, Task
from contracts.requests.schema import REQUESTS, JobRequest

Schema = dict[str, Any]

_MODES_OF_CONTROLNET = (Mode.CONTROLNET, Mode.CONTROLNET_IMG2IMG, Mode.CONTROLNET_INPAINT)


@cache
def _schema_of(kind: type[BaseModel]) -> Schema:
    return kind.model_json_schema()


def allowed_at(kind: type[BaseModel], path: Sequence[str | int]) -> object:
    """What a request may hold at a path: a list of values, a range in words, or None where all goes.

    For a path that names no field: the fields that there are.
    """
    whole = here = _schema_of(kind)
    for step in path:
        inside = _inside(here, step)
        if inside is None:
            return sorted(here.get("properties", ())) or None
        here = _settle(whole, inside)
    return _in_words(here)


def takes_text(kind: type[BaseModel], field: str) -> bool:
    """Whether a field may be a string; so may one that there is not."""
    whole = _schema_of(kind)
    part = whole["properties"].get(field, {"type": "string"})
    return any(_settle(whole, branch).get("type") == "string" for branch in part.get("anyOf", [part]))


def bounds_of(kind: type[JobRequest], field: str) -> tuple[int, int]:
    """Least and largest value of a whole-number field."""
    whole = _schema_of(kind)
    part = _settle(whole, whole["properties"][field])
    return part["minimum"], part["maximum"]


def _inside(here: Schema, step: str | int) -> Schema | None:
    if isinstance(step, int):
        prefix = here.get("prefixItems", [])
        found = prefix[step] if step < len(prefix) else here.get("items")
    else:
        found = here.get("properties", {}).get(step) or here.get("additionalProperties")
    return found if isinstance(found, dict) else None


def _settle(whole: Schema, part: Schema) -> Schema:
    """Follow a reference, and leave out the null of something that may be null."""
    if "anyOf" in part:
        part = next(branch for branch in part["anyOf"] if branch.get("type") != "null")
    if "$ref" in part:
        part = whole["$defs"][part["$ref"].rsplit("/", 1)[1]]
    return part


def _in_words(part: Schema) -> object:
    if "const" in part:
        return [part["const"]]
    if "enum" in part:
        return part["enum"]
    if part.get("type") == "boolean":
        return [True, False]
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
        ("minProperties", "maxProperties", " entries"),
    ):
        if high in part:
            if "exclusiveMinimum" in part:
                return f"above {part['exclusiveMinimum']}, up to {part[high]}"
            return f"{part.get(low, 0)}–{part[high]}{unit}"
    return None


def schemas_for(model: ModelSpec, catalogue: Catalogue) -> dict[Task, Schema]:
    """For each task that the model can run: the request's schema, narrowed to what the model takes."""
    return {task: _narrow(REQUESTS[task], task, model, catalogue) for task in model.tasks}


def _narrow(kind: type[JobRequest], task: Task, model: ModelSpec, catalogue: Catalogue) -> Schema:
    schema = copy.deepcopy(_schema_of(kind))
    properties: Schema = schema["properties"]
    granted = _granted(task, model)
    for name in list(properties):
        if name in MODE_FIELDS - granted or name in model.refuses:
            del properties[name]
    _put_defaults(schema, model)
    _settle(schema, properties["model"])["enum"] = [model.id]
    _settle(schema, properties["scheduler"])["enum"] = model.schedulers
    for side in ("width", "height"):
        _settle(schema, properties[side])["multipleOf"] = model.family_spec.size_multiple
    if "max_sequence_length" in properties:
        longest = model.family_spec.max_sequence_length
        _settle(schema, properties["max_sequence_length"])["maximum"] = longest
    _name_rows(schema, "loras", "name", lora_ids(model, catalogue))
    _name_rows(schema, "controls", "controlnet", controlnet_ids(model, catalogue))
    schema["description"] += f" At most {model.pixel_cap} pixels, width × height."
    return schema


def name_choices(schemas: dict[str, Schema], kinds: Sequence[type[JobRequest]], catalogue: Catalogue) -> None:
    """Let the schemas of these requests take what is in the catalogue only: models, schedulers, ControlNets.

    Not adapters, which come and go while the service runs.
    """
    schedulers = list(dict.fromkeys(name for model in catalogue.models for name in model.schedulers))
    multiple = gcd(*(model.family_spec.size_multiple for model in catalogue.models))
    for kind in kinds:
        properties = schemas[kind.__name__]["properties"]
        _settle({}, properties["model"])["enum"] = [model.id for model in catalogue.models]
        _settle({}, properties["scheduler"])["enum"] = schedulers
        for side in ("width", "height"):
            _settle({}, properties[side])["multipleOf"] = multiple
    schemas["Control"]["properties"]["controlnet"]["enum"] = [row.id for row in catalogue.controlnets]


def _name_rows(schema: Schema, field: str, name: str, ids: list[str]) -> None:
    """Let the entries of a list name these rows only; a list that could only be empty goes."""
    entries = schema["properties"].get(field)
    if entries is None:
        return
    definition = entries["items"]["$ref"].rsplit("/", 1)[1]
    if ids:
        schema["$defs"][definition]["properties"][name]["enum"] = ids
    else:
        del schema["properties"][field], schema["$defs"][definition]


def _granted(task: Task, model: ModelSpec) -> frozenset[str]:
    modes = _MODES_OF_CONTROLNET if task is Task.CONTROLNET else (Mode(task.value),)
    known = model.family_spec.modes
    return frozenset().union(*(known[mode] for mode in modes if mode in known))


def _put_defaults(schema: Schema, model: ModelSpec) -> None:
    properties = schema["properties"]
    for name, value in {**model.family_spec.defaults, **model.defaults}.items():
        # The size of an image that the request must bring stands in for the model's own size.
        if name in properties and not (name in ("width", "height") and "image" in schema["required"]):
            properties[name]["default"] = value


def lora_ids(model: ModelSpec, catalogue: Catalogue) -> list[str]:
    """Adapters that were made for the model's family."""
    return [row.id for row in catalogue.loras if row.suits(model)]


def controlnet_ids(model: ModelSpec, catalogue: Catalogue) -> list[str]:
    """ControlNets that were made for the model's family."""
    return [row.id for row in catalogue.controlnets if row.family == model.family]
