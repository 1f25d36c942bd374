"""A list as clients get it: one page of objects, and where the next one begins."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Entry = TypeVar("Entry")


class ListView(BaseModel, Generic[Entry]):
    """A list of objects, possibly one page of several."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["list"] = Field("list", description="Always `list`.")
    data: list[Entry] = Field(description="The entries of this page.")
    has_more: bool = Field(False, description="Whether there is a next page.")
    next_cursor: str | None = Field(
        None, description="Value of the query parameter `cursor` for the next page; null on the last one."
    )
