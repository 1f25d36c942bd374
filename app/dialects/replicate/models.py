"""Models of the catalogue as Replicate's clients see them: owner, name, and one version with its input schema."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from app.dialects.replicate.schema import ModelVersion, ReplicateModel
from app.parsing.schemas import schemas_for
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import NotFound
from contracts.views.prediction import MODEL_OWNER

_NO_DATE = datetime.fromtimestamp(0, UTC)
#: From this version of Cog on, an output that is a list is not taken for one that arrives in pieces.
_COG_VERSION = "0.9.0"
#: Version of a prediction whose model is no longer in the catalogue, as Replicate writes what it does not tell.
HIDDEN = "hidden"
#: Fields that a prediction has outside of its input, or whose value follows from the others.
_OUTSIDE = frozenset({"model", "task", "webhook"})
_OUTPUT = {
    "type": "array",
    "title": "Output",
    "items": {"type": "string", "format": "uri"},
    "description": "URLs of the images.",
}


def version_id(model: ModelSpec) -> str:
    """The id of a model's version: SHA-256 of its row in the catalogue, so another row is another version."""
    row = json.dumps(model.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(row.encode()).hexdigest()


def version_of(model_id: str, catalogue: Catalogue) -> str:
    """The id of the version of a job's model; `HIDDEN` if the catalogue no longer has it."""
    try:
        return version_id(catalogue.model(model_id))
    except NotFound:
        return HIDDEN


def find_model(owner: str, name: str, catalogue: Catalogue) -> ModelSpec:
    """The model with this owner and name, which may be an alias; raises NotFound."""
    return catalogue.model(name if owner == MODEL_OWNER else f"{owner}/{name}")


def find_version(text: str, catalogue: Catalogue) -> ModelSpec:
    """The model that a version's id, `OWNER/NAME` or `OWNER/NAME:VERSION` names; raises NotFound."""
    name, _, id = text.rpartition(":") if ":" in text else ("", "", text)
    if "/" in id:
        owner, _, model_name = id.partition("/")
        return find_model(owner, model_name, catalogue)
    for model in catalogue.models:
        if version_id(model) == id and name in ("", f"{MODEL_OWNER}/{model.id}"):
            return model
    raise NotFound("version", text[:200])


def view_model(model: ModelSpec, catalogue: Catalogue, base: str) -> ReplicateModel:
    """Describe a model; `base` is that of the service's URLs."""
    return ReplicateModel(
        url=f"{base}/replicate/v1/models/{MODEL_OWNER}/{model.id}",
        owner=MODEL_OWNER,
        name=model.id,
        description=model.title or model.id,
        latest_version=view_version(model, catalogue),
    )


def view_version(model: ModelSpec, catalogue: Catalogue) -> ModelVersion:
    """Describe the only version of a model."""
    return ModelVersion(
        id=version_id(model),
        created_at=_NO_DATE,
        cog_version=_COG_VERSION,
        openapi_schema=_openapi_schema(model, catalogue),
    )


def _openapi_schema(model: ModelSpec, catalogue: Catalogue) -> dict[str, Any]:
    """A document with the input of all of the model's tasks: which one runs follows from the images in it."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for schema in schemas_for(model, catalogue).values():
        properties = {**schema["properties"], **properties}
        definitions |= schema.get("$defs", {})
    ordered = {name: {**part, "x-order": order} for order, (name, part) in enumerate(properties.items())}
    schemas = {
        "Input": {
            "type": "object",
            "title": "Input",
            "required": [model.family_spec.subject],
            "properties": {name: part for name, part in ordered.items() if name not in _OUTSIDE},
        },
        "Output": _OUTPUT,
        **definitions,
    }
    document = {
        "openapi": "3.1.0",
        "info": {"title": model.title or model.id, "version": version_id(model)},
        "paths": {},
        "components": {"schemas": schemas},
    }
    text = json.dumps(document).replace('"#/$defs/', '"#/components/schemas/')
    found: dict[str, Any] = json.loads(text)
    return found
