"""Documentation of routes that FastAPI cannot derive: bodies that they read themselves, errors, streams.

A route names the statuses of its errors, `responses=problems(404, 422)`; `document.py` adds their schemas and all
examples.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from contracts.requests.schema import REQUESTS

REFERENCE = "#/components/schemas/{model}"
#: Placeholder in a route's responses for an error in the route's dialect.
PROBLEM = "application/problem+json"
_BYTES = {"type": "string", "format": "binary"}

Document = dict[str, Any]


#: Error statuses of every route that creates something from a request body.
MAKING = (400, 403, 408, 409, 410, 413, 415, 422, 429, 503, 507)


def problems(*statuses: int) -> dict[int | str, Document]:
    """`responses` of a route that may answer with these error statuses, in any dialect.

    Each is documented with one example for every row of `errors.ROWS` with that status: a new error needs a row
    there and its status here. 500 is always documented.
    """
    return {status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM: {}}} for status in statuses}


def accepted(view: type[BaseModel]) -> dict[int | str, Document]:
    """`responses` of a route that creates a job."""
    applied = {"description": "the preference that was applied", "schema": {"type": "string"}}
    location = {"description": "URL of the job", "schema": {"type": "string", "format": "uri"}}
    replayed = {
        "description": "`true` if an earlier call with the same Idempotency-Key created the job",
        "schema": {"type": "string"},
    }
    headers = {"Location": location, "Preference-Applied": applied, "Idempotency-Replayed": replayed}
    return {
        200: {"model": view, "description": "The job has ended (with `Prefer: wait`)", "headers": headers},
        202: {"model": view, "description": "The job is accepted and waits to run", "headers": headers},
    }


def request_body(kind: type[BaseModel]) -> Document:
    """`openapi_extra` of a route that takes this request as JSON, or of a webhook that sends this view."""
    schema = {"$ref": REFERENCE.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def plan_body() -> Document:
    """`openapi_extra` of a route that takes a request of any task, named by its field `task`."""
    kinds = [{"$ref": REFERENCE.format(model=kind.__name__)} for kind in REQUESTS.values()]
    schema = {"type": "object", "required": ["task"], "oneOf": kinds}
    example = {"task": "txt2img", "prompt": "a red circle on a blue background"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
    }


def edit_body(kind: type[BaseModel]) -> Document:
    """`openapi_extra` of a route that takes this request as JSON, or as a form with files."""
    schema = {"$ref": REFERENCE.format(model=kind.__name__)}
    content = {"multipart/form-data": {"schema": schema}, "application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def streamed(view: type[BaseModel], description: str) -> dict[int | str, Document]:
    """`responses` of a route that answers with JSON, or server-sent events if the request asks for a stream."""
    event = {"type": "image_generation.completed", "b64_json": "iVBORw0KGgo…", "size": "64x64"}
    return {
        200: {
            "model": view,
            "description": description,
            "content": {"text/event-stream": _events(event, "image_generation.completed")},
        }
    }


def event_stream() -> dict[int | str, Document]:
    """`responses` of a route that streams a job's events."""
    description = (
        "Server-sent events: `queued`, `preparing` (of files that the job waits for), `started`, `progress`, "
        "`preview`, and finally `completed`, `failed` or `cancelled`"
    )
    event = {"step": 3, "steps": 12, "fraction": 0.25, "eta_seconds": 0.8}
    stream = _events(event, "progress", id="1795243825169-0")
    return {200: {"description": description, "content": {"text/event-stream": stream}}}


def _events(data: Document, event: str, **others: str) -> Document:
    """A media type object of server-sent events; the schema is that of one event."""
    text = {"type": "string"}
    properties = {"event": text, "data": {**text, "contentMediaType": "application/json"}}
    schema = {
        "type": "object",
        "properties": {**properties, **dict.fromkeys(others, text)},
        "required": ["event", "data"],
    }
    return {"schema": schema, "example": {**others, "event": event, "data": json.dumps(data)}}


def rerun_body() -> Document:
    """`openapi_extra` of a route that takes any fields of a request, or no body."""
    schema = {
        "type": "object",
        "description": "fields of the job's task that are to differ; null resets a field to its default",
    }
    content = {"application/json": {"schema": schema, "example": {"seed": 8}}}
    return {"requestBody": {"required": False, "content": content}}


def upload_body() -> Document:
    """`openapi_extra` of a route that takes an image as raw bytes or in a form."""
    form = {"type": "object", "required": ["file"], "properties": {"file": _BYTES}, "additionalProperties": False}
    content = {
        "image/*": {"schema": _BYTES},
        "application/octet-stream": {"schema": _BYTES},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


def lora_body() -> Document:
    """`openapi_extra` of a route that takes a LoRA file as raw bytes or in a form."""
    name = {
        "type": "string",
        "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$",
        "description": "id of the LoRA in requests; default: made from the file name",
    }
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": _BYTES, "name": name},
        "additionalProperties": False,
    }
    content = {"application/octet-stream": {"schema": _BYTES}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}
