"""The base of everything that clients send: frozen, and without unknown fields."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict

#: Of classes that are stored with a job: a newer release may have added fields.
STORED = ConfigDict(extra="ignore")


def _lift_descriptions(schema: JsonDict) -> None:
    """Move the description of `T | None` from the branch of T, where pydantic leaves it, to the field."""
    properties = schema.get("properties")
    for field in properties.values() if isinstance(properties, dict) else ():
        branches = field.get("anyOf") if isinstance(field, dict) else None
        for branch in branches if isinstance(branches, list) else ():
            if isinstance(branch, dict) and isinstance(field, dict) and "description" in branch:
                field.setdefault("description", branch.pop("description"))


class StrictModel(BaseModel):
    """A frozen model that refuses unknown fields, NaN and infinity."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra=_lift_descriptions,
        json_schema_serialization_defaults_required=True,
    )
