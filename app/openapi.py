"""The OpenAPI document's parts that FastAPI cannot see: bodies that routes read themselves, problem answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.errors import Problem
from contracts.tasks import REQUESTS, JobRequest

_REFERENCE = "#/components/schemas/{model}"
_BYTES = {"type": "string", "format": "binary"}

Document = dict[str, Any]


def problems(*statuses: int) -> dict[int | str, Document]:
    """`responses` of a route that may answer with these problems; any other is documented as `default`."""
    content = {"application/problem+json": {"schema": {"$ref": _REFERENCE.format(model=Problem.__name__)}}}
    described: dict[int | str, Document] = {
        status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses
    }
    return described | {"default": {"description": "Any other error", "content": content}}


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


class DocumentedApi(FastAPI):
    """A FastAPI application whose document holds the schemas that the routes' bodies refer to."""

    def openapi(self) -> Document:
        """The document; made once."""
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            models = [(kind, "validation") for kind in REQUESTS.values()] + [(Problem, "serialization")]
            _, definitions = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas |= {name: schema for name, schema in definitions["$defs"].items() if name not in schemas}
            self.openapi_schema = document
        return self.openapi_schema
