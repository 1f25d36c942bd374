"""JSON Schema of a training on one model, by its kind, and of a request for one upscaler or eraser."""

from __future__ import annotations

import copy

from pydantic import BaseModel

from app.parsing.schemas import Schema, dereference, schema_of
from contracts.catalogue.rows.models import ModelSpec
from contracts.requests.training.request import MAX_IMAGES, TrainingRequest
from contracts.requests.training.settings import Kind
from contracts.requests.training.trainable import LEARNING_RATES, default_resolution, kinds_of, unused_fields


def training_schemas(model: ModelSpec) -> dict[Kind, Schema]:
    """Return the schema of a training on the model for each kind, with the fields that mean something for it."""
    return {kind: _training_schema(kind, model) for kind in kinds_of(model)}


def network_schema(request: type[BaseModel], id: str) -> Schema:
    """Return the schema of a request for the upscaler or eraser with this id."""
    schema = copy.deepcopy(schema_of(request))
    _set_model(schema, id)
    return schema


def _training_schema(kind: Kind, model: ModelSpec) -> Schema:
    schema = copy.deepcopy(schema_of(TrainingRequest))
    properties: Schema = schema["properties"]
    # A request with `resume_from` has the model and the settings of another training.
    for name in (*unused_fields(kind, model), "resume_from"):
        del properties[name]
    _set_model(schema, model.id)
    properties["kind"] = {"const": kind, "description": properties["kind"]["description"], "title": "Kind"}
    schema["required"] += ["kind"]  # its default is one of the kinds, which may be another
    properties["images"]["maxItems"] = MAX_IMAGES[kind]
    properties["learning_rate"]["default"] = LEARNING_RATES[kind]
    properties["resolution"]["default"] = default_resolution(model)
    example = dereference(schema, properties["images"]["items"])
    if kind == "controlnet":
        example["required"] += ["conditioning_image"]
    else:
        del example["properties"]["conditioning_image"]
    return schema


def _set_model(schema: Schema, id: str) -> None:
    dereference(schema, schema["properties"]["model"])["enum"] = [id]
