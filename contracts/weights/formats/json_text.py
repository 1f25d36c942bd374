"""Parses JSON that clients put inside files, as their metadata.

Size and number of containers are bounded before anything is parsed, so that no input takes long or much memory.
Request bodies are parsed by `app/parsing/requests.py`.
"""

from __future__ import annotations

import json
import math

from contracts.errors import DarkroomError

#: Maximum number of objects and lists, counted by their brackets, those in strings too.
_MAX_CONTAINERS = 10_000


class UnreadableJson(DarkroomError):
    """Text that is not JSON, or over a limit; the message continues a sentence that names it."""


def read_json(text: str, max_characters: int) -> object:
    """Parse JSON as RFC 8259 defines it: `NaN` and `Infinity`, which Python accepts, are not part of it.

    Raises:
        UnreadableJson: the text is not JSON, is longer than `max_characters`, has more than 10,000 objects and
            lists, nests deeper than the stack, repeats a name in an object, or has a number that is too large.
    """
    if len(text) > max_characters:
        raise UnreadableJson(f"has {len(text)} characters; at most {max_characters} are allowed")
    if text.count("[") + text.count("{") > _MAX_CONTAINERS:
        raise UnreadableJson(f"has more than {_MAX_CONTAINERS} objects and lists")
    try:
        return json.loads(
            text, object_pairs_hook=unique_members, parse_float=_finite, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise UnreadableJson("is nested too deeply") from None
    except ValueError as error:
        raise UnreadableJson(f"is not JSON: {error}") from None


def unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object for `json`; raises ValueError if a name occurs twice, because readers would disagree."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has the same name twice")
    return members


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")
