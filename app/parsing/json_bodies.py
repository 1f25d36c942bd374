"""Bounds what a JSON body may cost to parse: its size without images, and names that an object repeats.

Checks only what a parser cannot or would not refuse cheaply; whether the body is valid JSON is left to the parser.
"""

from __future__ import annotations

import json
from typing import Any

from app.errors import BodyTooLarge
from contracts.errors import FieldProblem, InvalidRequest

#: Limit on a JSON body, in bytes, without the images in it. The largest sensible request is a tenth of it.
MAX_JSON_BYTES = 256 * 2**10
#: Fields whose values are images, in any request and at any depth. Only these may be larger.
IMAGE_FIELDS = frozenset({b"image", b"mask_image", b"mask"})

#: Limit on the entries of any list: a list of invalid entries costs an error each. No field takes a tenth of it.
_MAX_ENTRIES = 100
_LONGEST_NAME = max(map(len, IMAGE_FIELDS))
#: How far behind a string its colon is looked for; what is further away is taken for a value.
_MAX_SPACES = 64


def check_json(raw: bytes) -> None:
    """Check a JSON body before it is parsed. Takes time in proportion to its size, whatever it contains.

    Raises:
        BodyTooLarge: more than `MAX_JSON_BYTES` outside of images.
        InvalidRequest: an object has a name twice, of which RFC 8259 leaves open which counts; or a list is longer
            than any field allows.
    """
    outline = _without_images(raw)
    if outline is None:
        return
    try:
        json.loads(outline, object_pairs_hook=_check_object)
    except (ValueError, RecursionError):
        return  # not JSON, which the parser words better; it does not recurse as deep either


def _check_object(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    problems = []
    for name, value in pairs:
        if name in seen:
            problems.append(FieldProblem(name, "is given more than once; send it once"))
        if isinstance(value, list) and len(value) > _MAX_ENTRIES:
            message = f"must have at most {_MAX_ENTRIES} entries, got {len(value)}"
            problems.append(FieldProblem(name, message, f"0–{_MAX_ENTRIES} entries"))
        seen.add(name)
    if problems:
        raise InvalidRequest(problems)


def _without_images(raw: bytes) -> bytes | None:
    """The body with empty strings in place of images; None where a string does not end."""
    if len(raw) <= MAX_JSON_BYTES:
        return raw
    pieces: list[bytes] = []
    copied = removed = 0
    name = b""
    opening = raw.find(b'"')
    while opening >= 0:
        if opening - removed > MAX_JSON_BYTES:
            raise _too_large()
        closing, has_quotes = _end_of_string(raw, opening, removed)
        if closing < 0:
            return None
        if raw[closing + 1 : closing + 1 + _MAX_SPACES].lstrip()[:1] == b":":
            name = raw[opening + 1 : min(closing, opening + 2 + _LONGEST_NAME)]
        elif name in IMAGE_FIELDS and not has_quotes:
            pieces.append(raw[copied : opening + 1])
            copied = closing
            removed += closing - opening - 1
        opening = raw.find(b'"', closing + 1)
    if len(raw) - removed > MAX_JSON_BYTES:
        raise _too_large()
    pieces.append(raw[copied:])
    return b"".join(pieces)


def _end_of_string(raw: bytes, opening: int, removed: int) -> tuple[int, bool]:
    """Where the string that opens here closes, or -1, and whether it has quotes in it, as no image has."""
    start, has_quotes = opening + 1, False
    while (closing := raw.find(b'"', start)) >= 0 and raw[closing - 1 : closing] == b"\\":
        inside = raw[start:closing]
        if (len(inside) - len(inside.rstrip(b"\\"))) % 2 == 0:
            break  # the backslashes escape one another
        if closing - removed > MAX_JSON_BYTES:
            raise _too_large()
        start, has_quotes = closing + 1, True
    return closing, has_quotes


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(
        f"the JSON body has more than {MAX_JSON_BYTES} bytes besides its images; send fewer or shorter fields"
    )
