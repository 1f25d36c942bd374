"""JSON Schema of the requests: the values that a field allows, and schemas narrowed to one model.

Works on the schemas that pydantic generates for `contracts/requests/schema.py`. Does not validate requests.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from math import gcd
from typing import Any

from pydantic import BaseModel

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import MODE_FIELDS, Task, modes_of
from contracts.catalogue.guidance import GUIDANCE_KINDS
from contracts.catalogue.rows.models import ModelSpec
from contracts.requests.checks.hires import hires_upscalers
from contracts.requests.checks.second_models import KINDS, second_models
from contracts.requests.checks.vaes import vae_ids
from contracts.requests.fields import TRANSPARENT_FORMATS
from contracts.requests.schema import REQUESTS, JobRequest

Schema = dict[str, Any]
NULL: Schema = {"type": "null"}

#: Lists that only some families take -> the name of their entries' schema.
_ENTRIES = {"ip_adapters": "IpAdapter", "textual_inversions": "TextualInversion"}


@cache
def schema_of(kind: type[BaseModel]) -> Schema:
    """Return the schema of a request, for all models; it is shared, and must not be changed."""
    return kind.model_json_schema()


def allowed_at(kind: type[BaseModel], path: Sequence[str | int]) -> object:
    """Return what a request allows at a path: a list of values, a range as text, or None if anything is allowed.

    For an unknown field: the names of the known ones.
    """
    whole = here = schema_of(kind)
    for step in path:
        inside = _child(here, step)
        if inside is None:
            return sorted(here.get("properties", ())) or None
        here = dereference(whole, inside)
    return allowed_in(here)


def range_at(kind: type[BaseModel], path: Sequence[str | int]) -> tuple[float, float] | None:
    """Return the smallest and largest number allowed at a path of a request; None if it does not hold a number."""
    whole = here = schema_of(kind)
    for step in path:
        inside = _child(here, step)
        if inside is None:
            return None
        here = dereference(whole, inside)
    if here.get("type") not in ("integer", "number") or "maximum" not in here:
        return None
    low, high = here.get("minimum"), here["maximum"]
    # An exclusive minimum is not allowed itself: suggest a number just above it.
    return (here["exclusiveMinimum"] + high / 1000 if low is None else low), high


def takes_text(kind: type[BaseModel], field: str) -> bool:
    """Return whether a field may be a string; an unknown field may."""
    whole = schema_of(kind)
    part = whole["properties"].get(field, {"type": "string"})
    return any(dereference(whole, branch).get("type") == "string" for branch in part.get("anyOf", [part]))


def bounds_of(kind: type[JobRequest], field: str) -> tuple[int, int]:
    """Return minimum and maximum of an integer field."""
    whole = schema_of(kind)
    part = dereference(whole, whole["properties"][field])
    return part["minimum"], part["maximum"]


def _child(parent: Schema, step: str | int) -> Schema | None:
    if isinstance(step, int):
        prefix = parent.get("prefixItems", [])
        found = prefix[step] if step < len(prefix) else parent.get("items")
    else:
        found = parent.get("properties", {}).get(step) or parent.get("additionalProperties")
    return found if isinstance(found, dict) else None


def dereference(whole: Schema, part: Schema) -> Schema:
    """Follow a reference, and drop the null branch of an optional field."""
    if "anyOf" in part:
        part = next(branch for branch in part["anyOf"] if branch.get("type") != "null")
    if "$ref" in part:
        part = whole["$defs"][part["$ref"].rsplit("/", 1)[1]]
    return part


def without_null(part: Schema) -> Schema:
    """The schema of a field that has a value or is left out, as in a path, a header or a form: without null."""
    branches = [branch for branch in part.get("anyOf", ()) if branch != NULL]
    if len(branches) != 1:
        return {**part, "anyOf": branches} if branches else part
    return {**{name: value for name, value in part.items() if name != "anyOf"}, **branches[0]}


def allowed_in(part: Schema) -> object:
    """Return what a field's schema allows: a list of values, a range as text, or None if anything is allowed."""
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
            if part.get(low) == part[high]:
                return f"{part[high]}{unit}"
            return f"{part.get(low, 0)}–{part[high]}{unit}"
    return None


def schemas_for(model: ModelSpec, catalogue: Catalogue) -> dict[Task, Schema]:
    """Return the request's schema for each task of the model, narrowed to what the model accepts."""
    return {task: _narrow(REQUESTS[task], task, model, catalogue) for task in model.tasks}


def _narrow(kind: type[JobRequest], task: Task, model: ModelSpec, catalogue: Catalogue) -> Schema:
    schema = copy.deepcopy(schema_of(kind))
    properties: Schema = schema["properties"]
    used = _used_fields(task, model)
    for name in list(properties):
        if name in MODE_FIELDS - used or name in model.refused:
            del properties[name]
    _set_defaults(schema, model)
    dereference(schema, properties["model"])["enum"] = [model.id]
    dereference(schema, properties["scheduler"])["enum"] = model.schedulers
    if "long_prompt" in properties:
        dereference(schema, properties["long_prompt"])["enum"] = list(model.family_spec.long_prompts)
    for side in ("width", "height"):
        dereference(schema, properties[side])["multipleOf"] = model.family_spec.size_multiple
        if model.family_spec.fixed_size:
            dereference(schema, properties[side])["enum"] = [model.default(side)]
    if "max_sequence_length" in properties:
        longest = model.family_spec.max_sequence_length
        dereference(schema, properties["max_sequence_length"])["maximum"] = longest
    subject = model.family_spec.subject
    properties[subject] = without_null(properties[subject])
    del properties[subject]["default"]
    more = sorted(model.family_spec.required_fields & properties.keys())
    schema["required"] = [subject, *schema.get("required", ()), *more]
    references = model.family_spec.references
    if "references" in properties and references is not None:
        properties["references"]["maxItems"] = references.max_count
        properties["references"]["description"] += f" Here: {references.meaning}"
    if model.family_spec.makes_layers:
        dereference(schema, properties["output_format"])["enum"] = list(TRANSPARENT_FORMATS)
        dereference(schema, properties["num_images"])["maximum"] = model.family_spec.max_images
    _restrict_guidance(schema, model)
    if "dynamic_thresholding" not in properties:
        schema["$defs"].pop("DynamicThresholding", None)
    if vaes := vae_ids(model, catalogue):
        dereference(schema, properties["vae"])["enum"] = vaes
    else:
        del properties["vae"]
    _restrict_ids(schema, "loras", "name", lora_ids(model, catalogue))
    _restrict_ids(schema, "ip_adapters", "name", ip_adapter_ids(model, catalogue))
    _restrict_ids(schema, "textual_inversions", "name", inversion_ids(model, catalogue))
    _restrict_ids(schema, "controls", "controlnet", controlnet_ids(model, catalogue))
    for field in KINDS:
        _restrict_entry(schema, field, "model", [row.id for row in second_models(field, model, catalogue)])
    _restrict_entry(schema, "hires", "upscaler", hires_upscalers(model, catalogue))
    schema["description"] += f" At most {model.pixel_cap} pixels, width × height."
    return schema


def name_examples(schemas: dict[str, Schema], kinds: Sequence[type[JobRequest]], catalogue: Catalogue) -> None:
    """Add the catalogue's ids to the schemas of these requests as examples, and the multiple that every size has.

    The ids are not an enumeration: clients that are generated from the schemas outlive a catalogue.
    """
    schedulers = list(dict.fromkeys(name for model in catalogue.models for name in model.schedulers))
    multiple = gcd(*(model.family_spec.size_multiple for model in catalogue.models))
    for kind in kinds:
        properties = schemas[kind.__name__]["properties"]
        properties["model"]["examples"] = [model.id for model in catalogue.models]
        properties["scheduler"]["examples"] = schedulers
        for side in ("width", "height"):
            dereference({}, properties[side])["multipleOf"] = multiple
    if catalogue.controlnets:
        schemas["Control"]["properties"]["controlnet"]["examples"] = [row.id for row in catalogue.controlnets]


def _restrict_ids(schema: Schema, field: str, name: str, ids: list[str]) -> None:
    """Restrict the entries of a list to these ids; without any, remove the list from the schema."""
    entries = schema["properties"].get(field)
    if entries is None:
        schema["$defs"].pop(_ENTRIES.get(field), None)
        return
    definition = entries["items"]["$ref"].rsplit("/", 1)[1]
    if ids:
        schema["$defs"][definition]["properties"][name]["enum"] = ids
    else:
        del schema["properties"][field], schema["$defs"][definition]


def _restrict_guidance(schema: Schema, model: ModelSpec) -> None:
    """Restrict guidance to the kinds that the model can follow, and to their options."""
    if "guidance" not in schema["properties"]:
        schema["$defs"].pop("Guidance", None)
        return
    kinds, options = model.family_spec.guidance_kinds, schema["$defs"]["Guidance"]["properties"]
    known = {name for kind in kinds for name in GUIDANCE_KINDS[kind].options}
    for name in options.keys() - known - {"kind"}:
        del options[name]
    options["kind"]["enum"] = list(kinds)
    if "layers" in options and model.guidance_layers is not None:
        layers = dereference(schema, options["layers"])
        layers["items"] |= {"minimum": 0, "maximum": model.guidance_layers - 1}


def _restrict_entry(schema: Schema, field: str, name: str, ids: list[str]) -> None:
    """Restrict an object's choice to these ids; without any, or in a task without the field, remove it."""
    definition = field.capitalize()
    if ids and field in schema["properties"]:
        schema["$defs"][definition]["properties"][name]["enum"] = ids
        return
    schema["properties"].pop(field, None)
    schema["$defs"].pop(definition, None)


def _used_fields(task: Task, model: ModelSpec) -> frozenset[str]:
    known = model.family_spec.modes
    return frozenset().union(*(known[mode] for mode in modes_of(task) if mode in known))


def _set_defaults(schema: Schema, model: ModelSpec) -> None:
    properties = schema["properties"]
    for name, value in {**model.family_spec.defaults, **model.defaults}.items():
        # With a required image or reference, its size is the default, not the model's.
        follows = name in ("width", "height") and {"image", "references"} & set(schema.get("required", ()))
        if name in properties and not follows:
            properties[name]["default"] = value


def lora_ids(model: ModelSpec, catalogue: Catalogue) -> list[str]:
    """Return the ids of the LoRAs that work with the model."""
    return [row.id for row in catalogue.loras if row.suits(model)]


def ip_adapter_ids(model: ModelSpec, catalogue: Catalogue) -> list[str]:
    """Return the ids of the IP-Adapters that work with the model."""
    return [row.id for row in catalogue.ip_adapters if row.suits(model)]


def inversion_ids(model: ModelSpec, catalogue: Catalogue) -> list[str]:
    """Return the ids of the textual inversions that work with the model."""
    return [row.id for row in catalogue.textual_inversions if row.suits(model)]


def controlnet_ids(model: ModelSpec, catalogue: Catalogue) -> list[str]:
    """Return the ids of the ControlNets that work with the model."""
    return [row.id for row in catalogue.controlnets if row.misfit(model) is None]
