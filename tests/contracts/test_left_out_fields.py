"""Fields that JSON leaves out: which values, and that nothing else about them differs."""

from __future__ import annotations

from pydantic import BaseModel, Field

from contracts.left_out_fields import LeftOutIfEmpty, LeftOutIfFalse, OrLeftOut


class Shown(BaseModel):
    """A model with one field of each kind, and a bound."""

    layer: OrLeftOut[int] = Field(None, ge=0, description="Layer.")
    notes: LeftOutIfEmpty[list[str]] = Field(default_factory=list, description="Notes.")
    hidden: LeftOutIfFalse = Field(False, description="Whether it is hidden.")


class Plain(BaseModel):
    """The same with fields that are always shown."""

    layer: int | None = Field(None, ge=0, description="Layer.")
    notes: list[str] = Field(default_factory=list, description="Notes.")
    hidden: bool = Field(False, description="Whether it is hidden.")


def test_what_is_left_out_is_read_back() -> None:
    text = Shown(layer=None, notes=[], hidden=False).model_dump_json()
    assert text == "{}"
    assert Shown.model_validate_json(text) == Shown()


def test_a_zero_is_no_reason_to_leave_a_number_out() -> None:
    assert Shown(layer=0, notes=[""], hidden=True).model_dump() == {"layer": 0, "notes": [""], "hidden": True}


def test_the_schema_of_what_is_sent_is_that_of_plain_fields() -> None:
    shown, plain = (kind.model_json_schema()["properties"] for kind in (Shown, Plain))
    assert shown == plain
