"""Makes the request that a job's receipt amounts to, with what the client wants changed. Accepts nothing."""

from __future__ import annotations

import io
import json
from typing import Any

from PIL import Image
from pydantic_core import from_json

from app.parsing.requests import parse
from app.submission.submit import JobDraft
from contracts.errors import FieldProblem, InvalidRequest, NotFound, UnreadableBody
from contracts.queue.records import JobRecord
from contracts.requests.parameters import JobParameters
from contracts.requests.resolution import StoredImage
from contracts.requests.schema import REQUESTS
from contracts.storage import Storage

#: Stands in the request for a picture that the first job has; it is never read as one.
_KEPT = "kept"


def rerun_draft(record: JobRecord, raw: bytes, storage: Storage) -> JobDraft:
    """The same again. A field of the body replaces the job's own; null takes it away.

    The seed is named now, so the job runs alone, and reproducibly. The deadline was the first job's own.

    Raises:
        UnreadableBody: no JSON.
        InvalidRequest: no JSON object, no request of this task, or a picture that is there no more.
    """
    changes = _read_object(raw)
    fields = {**_fields_of(record), **changes}
    fields = {name: value for name, value in fields.items() if value is not None}
    request = parse(REQUESTS[record.parameters.task], json.dumps(fields).encode())
    kept = {
        path: _measure(storage, path, key)
        for path, key in _pictures_of(record.parameters).items()
        if path.partition(".")[0] not in changes
    }
    return JobDraft(request, kept)


def _read_object(raw: bytes) -> dict[str, Any]:
    try:
        changes = from_json(raw, allow_inf_nan=False) if raw.strip() else {}
    except ValueError as error:
        raise UnreadableBody(f"the body is no JSON: {error}") from None
    if not isinstance(changes, dict):
        raise InvalidRequest([FieldProblem("body", "must be a JSON object")])
    return changes


def _fields_of(record: JobRecord) -> dict[str, Any]:
    """The request in full, pictures but named."""
    parameters = record.parameters
    fields = parameters.model_dump(mode="json", exclude={"mode", "batchable"}, exclude_none=True)
    fields["loras"] = [{"name": lora.name, "scale": lora.scale} for lora in parameters.loras]
    for picture in {"image", "mask_image"} & fields.keys():
        fields[picture] = _KEPT
    for control in fields["controls"]:
        if "image" in control:
            control["image"] = _KEPT
    known = REQUESTS[parameters.task].model_fields
    fields |= {
        "response_format": record.response_format,
        "priority": record.priority.value,
        "metadata": record.metadata,
    }
    return {name: value for name, value in fields.items() if name in known}


def _pictures_of(parameters: JobParameters) -> dict[str, str]:
    """Storage keys by the paths that a request has for them."""
    keys = {"image": parameters.image, "mask_image": parameters.mask_image}
    keys |= {f"controls.{index}.image": control.image for index, control in enumerate(parameters.controls)}
    return {path: key for path, key in keys.items() if key is not None}


def _measure(storage: Storage, path: str, key: str) -> StoredImage:
    try:
        with Image.open(io.BytesIO(storage.read(key)), formats=["PNG"]) as image:
            return StoredImage(key, *image.size)
    except NotFound:
        message = "the first job's picture is there no more; send it again"
        raise InvalidRequest([FieldProblem(path, message)]) from None
