"""Bodies of OpenAI Images calls, JSON or forms, as JSON and files. Does not know what the fields mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from app.dialects.openai.schema import FILE_FIELDS, EditRequest
from app.parsing.bodies import ReceivedBody
from app.parsing.json_bodies import check_json
from app.parsing.requests import from_json_or_none
from app.parsing.schemas import takes_text
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.fields import PROMPT_FIELDS

#: An image of a JSON body, as errors show it.
_IMAGE_OBJECT = '{"image_url": …} with a data: or https:// URL, or the name of an upload'
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


def with_plain_images(raw: bytes) -> bytes:
    """A JSON body whose images are objects, `"images": [{"image_url": …}]`, with texts under our names instead.

    Bytes that are not JSON are returned as they are, for the parser to word the error.

    Raises:
        BodyTooLarge: as `check_json` says.
        InvalidRequest: as `check_json` says, or an object names no image.
    """
    if not any(name in raw for name in (b'"images"', b'"image_url"', b'"file_id"')):
        return raw
    check_json(raw, EditRequest.model_fields)
    body = from_json_or_none(raw)
    if not isinstance(body, dict):
        return raw
    problems: list[FieldProblem] = []
    images = body.pop("images", None)
    if images is not None:
        if body.get("image") is not None:
            problems.append(FieldProblem("images", "is another name for image; send one of them"))
        elif not isinstance(images, list) or not images:
            problems.append(FieldProblem("images", f"must be a list of objects, {_IMAGE_OBJECT}"))
        else:
            body["image"], *further = (
                _url_of(f"images.{number}", image, problems) for number, image in enumerate(images)
            )
            body |= {"references": further} if further else {}
    if isinstance(body.get("mask"), dict):
        body["mask"] = _url_of("mask", body["mask"], problems)
    if problems:
        raise InvalidRequest(problems)
    return to_json(body)


def _url_of(path: str, image: object, problems: list[FieldProblem]) -> str:
    """The text of an image object; an empty one, and a problem, where it has none."""
    given = {name: value for name, value in image.items() if value is not None} if isinstance(image, dict) else {}
    url = given.get("image_url")
    if given.keys() == {"image_url"} and isinstance(url, str):
        return url
    if "file_id" in given:
        problems.append(FieldProblem(f"{path}.file_id", f"must name an image; send {_IMAGE_OBJECT}"))
    else:
        problems.append(FieldProblem(path, f"must be an object, {_IMAGE_OBJECT}"))
    return ""


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
