"""Types of fields that this service lacks: values that ask for nothing are taken, any other is refused by name."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_MAX_ECHO = 40
#: Text that has no effect, or is looked up elsewhere.
Text = Annotated[str, Field(max_length=512)]


class Only:
    """The values that a field may have: `Annotated[Any, Only(0, why="…")]`."""

    def __init__(self, *values: Any, why: str) -> None:
        """`why`: the reason that an error gives for refusing any other value."""
        self._values = values
        self._why = why

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the value."""
        del source, handler
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """List the values, and null, which counts as absent in every field."""
        del schema, handler
        return {"anyOf": [*map(_schema_of, self._values), {"type": "null"}]}

    def _check(self, value: object) -> object:
        if any(value == allowed and type(value) in _alike(allowed) for allowed in self._values):
            return value
        listed = " or ".join(_written(allowed) for allowed in self._values)
        raise ValueError(f"must be {listed} here, got {_written(value)}: {self._why}")


class Off(Only):
    """As `Only`, for a switch that can only be off; clients write false or 0."""

    def __init__(self, why: str) -> None:
        super().__init__(False, 0, why=why)


def _schema_of(value: object) -> dict[str, Any]:
    """One value as a schema, in the forms that generators of clients understand."""
    if isinstance(value, list):
        return {"type": "array", "items": {"type": "string"}, "maxItems": 0}
    if isinstance(value, dict):
        return {"type": "object", "maxProperties": 0}
    return {"const": value}


def _alike(value: object) -> tuple[type, ...]:
    """The types that are equal in JSON: a number, whether or not it has a fraction."""
    return (int, float) if type(value) in (int, float) else (type(value),)


def _written(value: object) -> str:
    """A value as JSON has it; a long one is not repeated."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= _MAX_ECHO else f"a text of {len(value)} characters"
    if isinstance(value, list | dict):
        return (
            repr(value) if not value else f"a {'list' if isinstance(value, list) else 'JSON object'} with entries"
        )
    return str(value)
