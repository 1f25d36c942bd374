"""Untrusted texts that are JSON; their size is bounded by the limit on texts."""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import from_json

_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,2})?", re.ASCII)


def read_object(text: str | None) -> dict[str, Any] | None:
    """The JSON object that a text is; None where it is none. The parser refuses deep nesting."""
    if text is None or text.lstrip()[:1] != "{":
        return None
    try:
        found = from_json(text, allow_inf_nan=False)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def read_number(value: object) -> float | int | None:
    """A number, also one that is written as text; None where it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return None
    number = float(value)
    return number if "." in value or "e" in value else int(value)


def is_empty(value: object) -> bool:
    """Whether a value says nothing: null, false, an empty text, list or object."""
    return value is None or value is False or value in ("", [], {})
