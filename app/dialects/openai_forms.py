"""Bodies of OpenAI Images calls, JSON or forms, as JSON and files. Does not know what the fields mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from app.dialects.openai_schema import FILE_FIELDS, EditRequest
from app.parsing.bodies import ReceivedBody
from app.parsing.json_bodies import check_json
from app.parsing.schemas import takes_text
from contracts.requests.fields import PROMPT_FIELDS

#: Fields of a form in which `null` is a word, and not an absent value.
_FREE_TEXT = frozenset({*PROMPT_FIELDS, "user", "safety_identifier"})


@dataclass
class RequestBody:
    """The body of a call.

    Attributes:
        json: the fields. A file of a form is represented by its hash, so equal forms have equal JSON.
        files: the form's image files by field, as they were received; a field's second one is `image.1`.
        received: the whole body, where its memory is counted.
    """

    json: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)
    received: ReceivedBody | None = None

    def release(self) -> None:
        """Forget everything, once the job is accepted."""
        self.json, self.files = b"", {}
        if self.received is not None:
            self.received.release()


def read_edit_form(fields: Sequence[tuple[str, str | bytes]]) -> RequestBody:
    """Turn the fields of a form into JSON and files; values of non-text fields are parsed as JSON."""
    values: dict[str, list[Any]] = {}
    files: dict[str, bytes] = {}
    for name, value in fields:
        name = name.removesuffix("[]")  # some clients send image[]
        entries = values.setdefault(name, [])
        if isinstance(value, bytes) and name in FILE_FIELDS:
            files[f"{name}.{len(entries)}" if entries else name] = value
        entries.append(_form_value(name, value))
    if "references" not in values and len(values.get("image", ())) > 1:
        first, *further = values["image"]
        values |= {"image": [first], "references": [further]}
    flat = {name: entries[0] if len(entries) == 1 else entries for name, entries in values.items()}
    return RequestBody(json.dumps(flat).encode(), files)


def _form_value(name: str, value: str | bytes) -> Any:
    if isinstance(value, bytes):
        digest = f"file:{hashlib.sha256(value).hexdigest()}"
        return digest if name in FILE_FIELDS else {"file": digest}  # no other field accepts an object like this
    if takes_text(EditRequest, name):
        return None if value == "null" and name not in _FREE_TEXT else value
    try:
        check_json(value.encode())
        return from_json(value)
    except ValueError:
        return value  # validation reports what it should have been
