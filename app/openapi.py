"""The OpenAPI document's parts that FastAPI cannot see: bodies that routes read themselves, problem answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.dialects.openai_requests import EditRequest, GenerationRequest, ImageRequest
from app.errors import NATIVE, ROWS, Dialect, Failure, Row, dialect_of
from contracts.errors import FieldProblem
from contracts.tasks import REQUESTS, JobRequest

_REFERENCE = "#/components/schemas/{model}"
_BYTES = {"type": "string", "format": "binary"}
#: Stands in a route's responses for an error in the route's dialect.
_PROBLEM = NATIVE.media_type

Document = dict[str, Any]


def problems(*statuses: int) -> dict[int | str, Document]:
    """`responses` of a route that may answer with these errors; any other is documented as `default`.

    What they look like is filled in by the route's dialect, with an example for each row of `errors.ROWS` that has
    the status. So a new error needs its row there, and its status here.
    """
    marked: Document = {"content": {_PROBLEM: {}}}
    described: dict[int | str, Document] = {
        status: {"description": HTTPStatus(status).phrase, **marked} for status in statuses
    }
    return described | {"default": {"description": "Any other error", **marked}}


def accepted(view: type[BaseModel]) -> dict[int | str, Document]:
    """`responses` of a route that makes a job."""
    applied = {"description": "the preference that was followed", "schema": {"type": "string"}}
    place = {"description": "the job's address", "schema": {"type": "string", "format": "uri"}}
    replayed = {"description": "`true` where an earlier call made the job", "schema": {"type": "string"}}
    headers = {"Location": place, "Preference-Applied": applied, "Idempotency-Replayed": replayed}
    return {
        200: {"model": view, "description": "Waited for (`Prefer: wait`), and ended", "headers": headers},
        202: {"model": view, "description": "Accepted", "headers": headers},
    }


def request_body(kind: type[JobRequest]) -> Document:
    """`openapi_extra` of a route that takes this request."""
    schema = {"$ref": _REFERENCE.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def plan_body() -> Document:
    """`openapi_extra` of a route that takes a request of any task, which says of which."""
    kinds = [{"$ref": _REFERENCE.format(model=kind.__name__)} for kind in REQUESTS.values()]
    schema = {"type": "object", "required": ["task"], "oneOf": kinds}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def edit_body(kind: type[ImageRequest]) -> Document:
    """`openapi_extra` of a route that takes this request as JSON, or as a form with files in it."""
    schema = {"$ref": _REFERENCE.format(model=kind.__name__)}
    content = {"multipart/form-data": {"schema": schema}, "application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def streamed(view: type[BaseModel], description: str) -> dict[int | str, Document]:
    """`responses` of a route that answers with JSON, or with server-sent events where the request says so."""
    return {
        200: {
            "model": view,
            "description": description,
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    }


def rerun_body() -> Document:
    """`openapi_extra` of a route that takes some fields of a request, or none."""
    schema = {"type": "object", "description": "fields of the job's own task; null takes a field away"}
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}


def upload_body() -> Document:
    """`openapi_extra` of a route that takes a picture's bytes or a form."""
    form = {"type": "object", "required": ["file"], "properties": {"file": _BYTES}}
    content = {
        "image/*": {"schema": _BYTES},
        "application/octet-stream": {"schema": _BYTES},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


def lora_body() -> Document:
    """`openapi_extra` of a route that takes a LoRA's bytes or a form."""
    name = {"type": "string", "description": "its id in requests; else made of the file's name"}
    form = {"type": "object", "required": ["file"], "properties": {"file": _BYTES, "name": name}}
    content = {"application/octet-stream": {"schema": _BYTES}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


class DocumentedApi(FastAPI):
    """A FastAPI application whose document holds what the routes' own code reads and writes."""

    def openapi(self) -> Document:
        """The document; made once."""
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            dialects: Sequence[Dialect] = self.state.dialects
            bodies = (*REQUESTS.values(), GenerationRequest, EditRequest)
            models = [(kind, "validation") for kind in bodies]
            models += [(dialect.model, "serialization") for dialect in (NATIVE, *dialects)]
            _, definitions = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas |= {name: schema for name, schema in definitions["$defs"].items() if name not in schemas}
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _describe_errors(operation, dialect_of(path, dialects))
            self.openapi_schema = document
        return self.openapi_schema


def _describe_errors(operation: Document, dialect: Dialect) -> None:
    """Fill in what stands marked in a route's responses."""
    for status, response in operation["responses"].items():
        if _PROBLEM in response.get("content", ()):
            rows = [row for row in ROWS.values() if str(row.status) == status] or [ROWS[Exception]]
            response["content"] = {
                dialect.media_type: {
                    "schema": {"$ref": _REFERENCE.format(model=dialect.model.__name__)},
                    "examples": {
                        row.code: {"summary": row.title, "value": _example(row, dialect)} for row in rows
                    },
                }
            }


def _example(row: Row, dialect: Dialect) -> object:
    problems = (FieldProblem("width", "68 is no multiple of 8; take one of the next", [64, 72]),)
    failure = Failure(row, row.title, problems if row.status == HTTPStatus.UNPROCESSABLE_ENTITY else ())
    return json.loads(bytes(dialect.render(failure, "4f1c7a80f2b6d935").body))
