"""What routes say about themselves that FastAPI cannot derive: groups, operation ids, answers, errors, streams.

A route names the statuses of its errors, `responses=problems(404, 422)`; `document.py` adds their schemas and all
examples.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.openapi.bodies import BINARY, Document

#: Placeholder in a route's responses for an error in the route's dialect.
PROBLEM = "application/problem+json"

_EVENT_FIELDS = {"id": "Id of the event; a stream that is opened with it as `Last-Event-ID` continues after it."}


#: The groups of operations, in the order in which they are shown.
TAGS: list[Document] = [
    {"name": "jobs", "description": "Create jobs, follow them, and download their images."},
    {"name": "trainings", "description": "Train LoRAs, textual inversions and ControlNets on your own images."},
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
    {"name": "provenance", "description": "How others verify where an image comes from."},
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
            "content": {f"image/{name}": {"schema": BINARY} for name in ("png", "jpeg", "webp")},
        }
    }


def file_answer(description: str) -> dict[int | str, Document]:
    """`responses` of a route that answers with a file that is not an image."""
    return {200: {"description": description, "content": {"application/octet-stream": {"schema": BINARY}}}}


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
