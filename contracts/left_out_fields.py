"""Fields that are left out of JSON if they are empty: in answers to clients, and in what is stored."""

from __future__ import annotations

from operator import not_
from typing import Annotated, TypeVar

from pydantic import Field

Value = TypeVar("Value")


def _is_none(value: object) -> bool:
    return value is None


#: A value, or null, which is left out.
OrLeftOut = Annotated[Value | None, Field(exclude_if=_is_none)]
#: A list, tuple or table, left out where it has no entries.
LeftOutIfEmpty = Annotated[Value, Field(exclude_if=not_)]
#: True, or false, which is left out.
LeftOutIfFalse = Annotated[bool, Field(exclude_if=not_)]
