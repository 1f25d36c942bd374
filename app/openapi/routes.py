"""Documentation of routes that FastAPI cannot derive: bodies that they read themselves, errors, streams.

A route names the statuses of its errors, `responses=problems(404, 422)`; `document.py` adds their schemas and all
examples.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.inputs.codec.decode import FORMATS
from app.openapi.descriptions import without_null
from app.parsing.schemas import dereference
from contracts.requests.schema import REQUESTS

REFERENCE = "#/components/schemas/{model}"
#: Placeholder in a route's responses for an error in the route's dialect.
PROBLEM = "application/problem+json"
_BYTES = {"type": "string", "format": "binary"}
#: Media types of the images that clients may send; HEIF is not promised, since its library is optional.
_IMAGE_TYPES = [f"image/{name.lower()}" for name in FORMATS if name != "HEIF"]

_FORM = "multipart/form-data"
#: Fields of an edit that are files in a form.
FORM_FILES = frozenset({"image", "mask"})
_EVENT_FIELDS = {"id": "Id of the event; a stream that is opened with it as `Last-Event-ID` goes on after it."}

Document = dict[str, Any]

#: The groups of operations, in the order in which they are shown.
TAGS: list[Document] = [
    {"name": "jobs", "description": "Create jobs, follow them, and download their images."},
    {"name": "trainings", "description": "Train LoRAs and textual inversions on your own images."},
    {"name": "uploads", "description": "Send images ahead of the requests that use them."},
    {
        "name": "catalogue",
        "description": "What requests may name: models, LoRAs, ControlNets, schedulers; and workers.",
    },
    {"name": "webhooks", "description": "The messages that the service posts, and the secret that verifies them."},
    {
        "name": "openai",
        "description": "The image API of OpenAI, for its clients. Each call answers when its job has ended.",
    },
    {
        "name": "huggingface",
        "description": "Hugging Face's inference calls, for its clients. Each answers with an image.",
    },
    {
        "name": "replicate",
        "description": "Replicate's predictions, models and files, for its clients.",
    },
    {
        "name": "admin",
        "description": "What operators do with the jobs of all owners, with an API key of scope `admin`.",
    },
    {"name": "provenance", "description": "How others check where an image comes from."},
    {
        "name": "a1111",
        "description": "The API of AUTOMATIC1111's web UI, for its clients. The API key may be the password.",
    },
    {"name": "health", "description": "Liveness, readiness and metrics, for those who run the service."},
]

#: First word of a route's name -> of its operation id.
_VERBS = {"show": "get", "add": "create", "submit": "create", "remove": "delete"}


def operation_id(route: APIRoute) -> str:
    """The id of a route's operation, after which generated clients name their methods: `show_job` → `getJob`."""
    verb, *rest = route.name.split("_")
    return _VERBS.get(verb, verb) + "".join(word.capitalize() for word in rest)


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
    applied = {"description": "The preference that was applied.", "schema": {"type": "string"}}
    location = {"description": "URL of the job.", "schema": {"type": "string", "format": "uri"}}
    replayed = {
        "description": "`true` if an earlier call with the same Idempotency-Key created the job, or one that this "
        "call of a client's library retries",
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


def preprocess_body() -> Document:
    """`openapi_extra` of the route that makes a control image at once, or in a job."""
    kinds = ("PreprocessRequest", "ControlImageRequest")
    schema = {"anyOf": [{"$ref": REFERENCE.format(model=name)} for name in kinds]}
    example = {"image": "job:5f0c2b1e9d3a4c6f8b7a6d5e4c3b2a10/0", "preprocess": "canny"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
    }


def training_body(kind: type[BaseModel]) -> Document:
    """`openapi_extra` of the route that takes this request as JSON, or in a form with a zip file of images."""
    schema: Document = {"$ref": REFERENCE.format(model=kind.__name__)}
    text = {
        "type": "string",
        "description": "The request as JSON, without `images`.",
        "examples": ['{"name": "my-dog", "instance_prompt": "a photo of sks dog"}'],
    }
    zip_file = {**_BYTES, "description": "A zip file of images; a caption is a text file `NAME.txt` beside one."}
    form = {
        "type": "object",
        "required": ["file", "request"],
        "description": "A form with one file.",
        "properties": {"file": zip_file, "request": text},
        "additionalProperties": False,
    }
    content = {"application/json": {"schema": schema}, _FORM: {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def plan_body(more: Iterable[type[BaseModel]] = ()) -> Document:
    """`openapi_extra` of a route that takes a request of any task, named by its field `task`.

    Args:
        more: requests that it takes beside those for diffusion models.
    """
    kinds = [{"$ref": REFERENCE.format(model=kind.__name__)} for kind in (*REQUESTS.values(), *more)]
    schema = {"type": "object", "required": ["task"], "oneOf": kinds}
    example = {"task": "txt2img", "prompt": "a red circle on a blue background"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
    }


def edit_body(kind: type[BaseModel]) -> Document:
    """`openapi_extra` of a route that takes this request as JSON, or as a form with files."""
    form = {"schema": {"$ref": REFERENCE.format(model=form_name(kind))}, "encoding": _encoding(*FORM_FILES)}
    schema = {"$ref": REFERENCE.format(model=kind.__name__)}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}, _FORM: form}},
    }


def form_name(kind: type[BaseModel]) -> str:
    """Name of the schema of a request as a form."""
    return f"{kind.__name__.removesuffix('Request')}Form"


def form_schema(request: Document, example: Document, schemas: Document) -> Document:
    """The schema of a request as a form: its images are files, or text as in JSON; no field is null.

    Args:
        request: the schema of the same request as JSON.
        example: one as JSON; its fields that are no files become examples of the form's.
        schemas: what the request refers to.
    """
    properties = {name: _form_field(without_null(part), schemas) for name, part in request["properties"].items()}
    for name in FORM_FILES:
        description = f"{properties[name]['description']} In a form: the file, or one of these as text."
        properties[name] = {**_BYTES, "description": description}
    for name in example.keys() - FORM_FILES:
        properties[name] = {**properties[name], "examples": [example[name]]}
    about = {
        "title": request["title"].replace("Request", "Form"),
        "description": f"{request['description']} As a form.",
    }
    return {**request, **about, "properties": properties}


def _form_field(part: Document, schemas: Document) -> Document:
    """The schema of a form's field: a list or an object is written as JSON."""
    if dereference({"$defs": schemas}, part).get("type") not in ("array", "object"):
        return part
    # Not with `contentMediaType`: Swagger UI takes such a field for a file.
    return {"type": "string", "description": f"{part['description']} In a form: as JSON."}


def _encoding(*files: str) -> Document:
    return {name: {"contentType": ", ".join(_IMAGE_TYPES)} for name in files}


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


def image_answer(description: str) -> dict[int | str, Document]:
    """`responses` of a route that answers with an image file."""
    return {
        200: {
            "description": description,
            "content": {f"image/{name}": {"schema": _BYTES} for name in ("png", "jpeg", "webp")},
        }
    }


def event_stream() -> dict[int | str, Document]:
    """`responses` of a route that streams a job's events."""
    description = (
        "Server-sent events: `queued`, `preparing` (of files that the job waits for), `started`, `progress`, "
        "`preview`, and finally `completed`, `failed` or `cancelled`. Each has the job's `status` and the time of "
        "the event, `at`; the last one has the job itself in `job`"
    )
    at = "2026-11-21T06:52:59.801Z"
    event = {"status": "running", "at": at, "step": 3, "steps": 12, "fraction": 0.25, "eta_seconds": 0.8}
    event["eta_range_seconds"] = [0.6, 1.1]
    stream = _events(event, "progress", id="1795243825169-0")
    return {200: {"description": description, "content": {"text/event-stream": stream}}}


def events_of(description: str, data: Document, event: str) -> dict[int | str, Document]:
    """`responses` of a route that streams events of another API, with an example of one."""
    stream = _events(data, event, id="1795243825169-0")
    return {200: {"description": description, "content": {"text/event-stream": stream}}}


def _events(data: Document, event: str, **others: str) -> Document:
    """A media type object of server-sent events; the schema is that of one event."""
    properties = {
        "event": {"type": "string", "description": "Kind of the event."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "What happened, as JSON; its fields depend on the kind.",
        },
        **{
            name: {"type": "string", "description": text} for name, text in _EVENT_FIELDS.items() if name in others
        },
    }
    schema = {
        "type": "object",
        "description": "One event of the stream.",
        "properties": properties,
        "required": ["event", "data"],
    }
    return {"schema": schema, "example": {**others, "event": event, "data": json.dumps(data)}}


def rerun_body() -> Document:
    """`openapi_extra` of a route that takes any fields of a request, or no body."""
    schema = {
        "type": "object",
        "description": "Fields of the job's task that are to differ; null resets a field to its default.",
    }
    content = {"application/json": {"schema": schema, "example": {"seed": 8}}}
    return {"requestBody": {"required": False, "content": content}}


def upload_body() -> Document:
    """`openapi_extra` of a route that takes an image as raw bytes or in a form."""
    form = {
        "type": "object",
        "description": "A form with one file.",
        "required": ["file"],
        "properties": {"file": {**_BYTES, "description": "The image file."}},
        "additionalProperties": False,
    }
    content = {
        _FORM: {"schema": form, "encoding": _encoding("file")},
        **{media_type: {"schema": _BYTES} for media_type in (*_IMAGE_TYPES, "application/octet-stream")},
    }
    return {"requestBody": {"required": True, "content": content}}


def content_file_body() -> Document:
    """`openapi_extra` of a route that takes an image in the field `content` of a form."""
    form = {
        "type": "object",
        "description": "A form with one file.",
        "required": ["content"],
        "properties": {"content": {**_BYTES, "description": "The image file."}},
        "additionalProperties": False,
    }
    return {
        "requestBody": {"required": True, "content": {_FORM: {"schema": form, "encoding": _encoding("content")}}}
    }


def adapter_body(noun: str, **fields: Document) -> Document:
    """`openapi_extra` of a route that takes an adapter's file, raw or in a form with these `fields`, too."""
    name = {
        "type": "string",
        "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$",
        "description": f"Id of the {noun} in requests. Default: made from the file name.",
        "examples": ["my-style"],
    }
    form = {
        "type": "object",
        "required": ["file"],
        "description": "A form with one file.",
        "properties": {"file": {**_BYTES, "description": "The `.safetensors` file."}, "name": name, **fields},
        "additionalProperties": False,
    }
    content = {_FORM: {"schema": form}, "application/octet-stream": {"schema": _BYTES}}
    return {"requestBody": {"required": True, "content": content}}
