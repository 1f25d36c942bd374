"""Bounds what a JSON body may cost to parse: its size without images, and names that an object repeats.

Checks only what a parser cannot or would not refuse cheaply; whether the body is valid JSON is left to the parser.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from app.errors import BodyTooLarge
from contracts.errors import MAX_PROBLEMS, FieldProblem, InvalidRequest, UnreadableBody

#: The message about a field that a request does not have.
UNKNOWN_FIELD = "is not a field of this request; remove it"

#: Limit on a JSON body, in bytes, without the images in it. The largest sensible request is a tenth of it.
MAX_JSON_BYTES = 256 * 2**10
#: Fields whose values are images, in any request and at any depth. Only these may be larger.
IMAGE_FIELDS = frozenset(
    {
        b"image",
        b"conditioning_image",
        b"mask_image",
        b"mask",
        b"references",
        b"inputs",
        b"init_images",
        b"input_image",
        b"controlnet_images",
        b"image_url",
    }
)

#: Limit on the entries of any list, and on the names of any object: each that is not allowed costs an error, which
#: is a hundred times as expensive as reading it. No field takes a fifth of it, and no request has as many fields.
_MAX_ENTRIES = 100
#: Limit on the names in all objects together.
_MAX_NAMES = 1000
#: Limit on the names and texts of a body above `MAX_JSON_BYTES`: each is looked at, to find what is an image.
_MAX_STRINGS = 4 * _MAX_NAMES
#: What every null that is a name's value looks like; base64, which has "null" in it by chance, has no colon.
_NULL_VALUE = re.compile(rb":\s*null")
#: How a reason of the parser begins -> what is wrong.
_PLAIN_WORDS = {
    "invalid unicode code point": "it is not UTF-8; encode it as that",
    **dict.fromkeys(
        ("unexpected end of hex escape", "lone leading surrogate"),
        "a \\u escape is half of a surrogate pair; send whole characters, also where a text is cut",
    ),
    "key must be a string": "a name must be a string in double quotes",
    "expected ident": "of words it has only true, false and null",
}
_LONGEST_NAME = max(map(len, IMAGE_FIELDS))
#: How far behind a string its colon is looked for; what is further away is taken for a value.
_MAX_SPACES = 64


def as_utf8(raw: bytes) -> bytes:
    """A JSON body without the byte order mark that some editors and PowerShell write in front of it.

    Raises:
        UnreadableBody: it is UTF-16 or UTF-32, which JSON on a network may not be (RFC 8259, 8.1).
    """
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw[:4]:
        raise UnreadableBody("the body is UTF-16 or UTF-32, and JSON must be UTF-8; encode it as that")
    return raw.removeprefix(codecs.BOM_UTF8)


def invalid_json(reason: str) -> UnreadableBody:
    """The error of a body that the parser refuses for this reason, in plain words where it has its own jargon."""
    words = next((words for jargon, words in _PLAIN_WORDS.items() if reason.startswith(jargon)), None)
    if words is not None:
        what, separator, remedy = words.partition("; ")
        _, at, place = reason.rpartition(" at line ")
        reason = f"{what}{at}{place}{separator}{remedy}"
    return UnreadableBody(f"the body is not valid JSON: {reason}")


def without_nulls(raw: bytes) -> bytes:
    """A JSON body without the names whose value is null, at any depth: they count as absent.

    Bytes that are not JSON are returned as they are, for the parser to word the error.
    """
    if not _NULL_VALUE.search(raw):
        return raw
    try:
        body = from_json(raw)
    except ValueError:
        return raw
    return to_json(_drop_nulls(body), inf_nan_mode="constants")


def _drop_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _drop_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_drop_nulls(inner) for inner in value] if isinstance(value, list) else value


def check_json(raw: bytes, fields: Container[str] = ()) -> None:
    """Check a JSON body before it is parsed. Takes time in proportion to its size, whatever it contains.

    Args:
        fields: names that the request may have.

    Raises:
        BodyTooLarge: more than `MAX_JSON_BYTES` outside of images; or it is larger, and has more names and texts
            than are looked at to find the images.
        InvalidRequest: an object repeats a name (RFC 8259 does not say which one counts); a list is longer than
            any field allows; or there are more names than any request has.
    """
    outline = _without_images(raw)
    if outline is None:
        return
    outlines = _Outlines()
    try:
        body = json.loads(outline, object_pairs_hook=outlines.read)
    except (ValueError, RecursionError):
        return  # not JSON, which the parser words better; it does not recurse as deep either
    if isinstance(body, _ManyNames):
        unknown = [name for name in body.names if name not in fields]
        shown = [FieldProblem(name, UNKNOWN_FIELD) for name in unknown[:MAX_PROBLEMS]]
        raise InvalidRequest(shown, len(unknown))
    if outlines.names > _MAX_NAMES:
        message = f"has {outlines.names} names in its objects; at most {_MAX_NAMES} are allowed"
        raise InvalidRequest([FieldProblem("body", message)])


@dataclass(frozen=True)
class _ManyNames:
    """An object with more names than any may have."""

    names: Sequence[str]


class _Outlines:
    """Checker of each object as it is read, which keeps no more of it than its parent must know.

    Attributes:
        names: in all objects so far.
    """

    def __init__(self) -> None:
        self.names = 0

    def read(self, pairs: list[tuple[str, Any]]) -> _ManyNames | None:
        """Check one object; those inside it were read before.

        Raises:
            InvalidRequest: as `check_json` says.
        """
        self.names += len(pairs)
        seen: set[str] = set()
        problems = []
        for name, value in pairs:
            if name in seen:
                problems.append(FieldProblem(name, "is given more than once; send it once"))
            size = len(value) if isinstance(value, list) else 0
            kind = "entries"
            if isinstance(value, _ManyNames):
                size, kind = len(value.names), "names"
            if size > _MAX_ENTRIES:
                message = f"must have at most {_MAX_ENTRIES} {kind}, got {size}"
                problems.append(FieldProblem(name, message, f"0–{_MAX_ENTRIES} {kind}"))
            seen.add(name)
        if problems:
            raise InvalidRequest(problems)
        return _ManyNames([name for name, _ in pairs]) if len(pairs) > _MAX_ENTRIES else None


def _without_images(raw: bytes) -> bytes | None:
    """The body with empty strings in place of images; None where a string does not end."""
    if len(raw) <= MAX_JSON_BYTES:
        return raw
    pieces: list[bytes] = []
    copied = removed = strings = 0
    name = b""
    opening = raw.find(b'"')
    while opening >= 0:
        if opening - removed > MAX_JSON_BYTES:
            raise _too_large()
        strings += 1
        if strings > _MAX_STRINGS:
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
        f"the JSON body has more than {MAX_JSON_BYTES} bytes besides its images, or more than {_MAX_STRINGS} "
        "names and texts beside a large image; send fewer or shorter fields"
    )
