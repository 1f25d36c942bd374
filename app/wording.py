"""Words what pydantic says of a value: what is allowed, and what was received. Knows no fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Longest text that a message quotes.
_MAX_ECHO = 40
#: Pydantic's error type -> message, with the fields of the error's context.
_MESSAGES: Mapping[str, str] = {
    "missing": "is required",
    "union_tag_not_found": "is required",
    "union_tag_invalid": "must be one of {expected_tags}, got '{tag}'",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "tuple_type": "must be a list",
    "too_short": "must have at least {min_length} entries, got {actual_length}",
    "too_long": "must have at most {max_length} entries, got {actual_length}",
    "string_type": "must be a string",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}

#: How pydantic writes a member of an enumeration: its value alone is what a client sends.
_MEMBER = re.compile(r"<[\w.]+: ('[^']*')>")

#: Errors whose messages say what was received, or that nothing was.
_NOT_QUOTING = frozenset({"missing", "too_short", "too_long", "union_tag_invalid"})


def word_error(item: Mapping[str, Any]) -> str:
    """Return the message of one of pydantic's errors, as its `errors()` lists them."""
    template = _MESSAGES.get(item["type"])
    if template is None:
        message = item["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
        return _quoting(message.replace("String should", "must", 1), item)
    context = item.get("ctx", {})
    message = _MEMBER.sub(r"\1", template.format(**context))
    if "actual_length" in context and context["actual_length"] is None:
        message = message.partition(", got")[0]  # pydantic stops counting at the limit
    return message if item["type"] in _NOT_QUOTING else _quoting(message, item)


def _quoting(message: str, item: Mapping[str, Any]) -> str:
    """A message with the value that was received; a long one is left out, since the client has its own text."""
    received = item.get("input")
    if ", got " in message:
        return message
    if isinstance(received, bool):
        return f"{message}, got {str(received).lower()}"
    is_short = isinstance(received, int | float) or (isinstance(received, str) and 0 < len(received) <= _MAX_ECHO)
    return f"{message}, got {received!r}" if is_short else message
