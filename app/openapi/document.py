"""The OpenAPI document: FastAPI's own, completed with bodies, errors, security and examples.

Routes describe themselves with `openapi/routes.py` and `openapi/bodies.py`. Examples are in `examples.json` under
their schemas' names; a test fails where one is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from threading import Lock
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.dialects.openai.schema import EditRequest, GenerationRequest, VariationRequest
from app.error_handlers import NATIVE, Dialect, dialect_of
from app.errors import ROWS, Failure, Row
from app.openapi.bodies import REFERENCE, Document, form_name, form_schema
from app.openapi.descriptions import complete_parameter, complete_requests, remove_unused
from app.openapi.page import add_page
from app.openapi.routes import PROBLEM, problems
from app.parsing.schemas import name_examples, without_null
from contracts.catalogue.catalogue import Catalogue
from contracts.errors import FieldProblem
from contracts.requests.images.preprocess_request import PreprocessRequest
from contracts.requests.plain.requests import PLAIN_REQUESTS
from contracts.requests.schema import REQUESTS, JobRequest
from contracts.requests.training.request import TrainingRequest

#: FastAPI's description of an answer.
_UNDESCRIBED = "Successful Response"
_REQUEST_ID = "4f1c7a80f2b6d935"
_BEARER = "HTTPBearer"
_BEARER_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key; `darkroom keys create` makes one",
}
_KINDS: tuple[type[JobRequest], ...] = (*REQUESTS.values(), GenerationRequest, EditRequest, VariationRequest)
#: Bodies that name no model of the catalogue.
_OTHER_KINDS: tuple[type[BaseModel], ...] = (*PLAIN_REQUESTS.values(), TrainingRequest, PreprocessRequest)


class DocumentedApi(FastAPI):
    """A FastAPI application with a complete OpenAPI document."""

    def __init__(self, catalogue: Catalogue, describe: Callable[[], Document], **options: Any) -> None:
        """Build an application without routes.

        Args:
            catalogue: has the models that requests may name.
            describe: makes FastAPI's own document of the routes, which is changed here.
            options: FastAPI's.
        """
        # The framework's pages of documentation load their scripts from other hosts.
        super().__init__(docs_url=None, redoc_url=None, **options)
        self._catalogue = catalogue
        self._describe = describe
        self._openapi_json = b""
        self._making = Lock()

    def setup(self) -> None:
        """Add the routes of the documentation; the document is rendered once, since anybody may ask for it."""
        if self.openapi_url is not None:
            self.add_route(self.openapi_url, self._show_openapi, include_in_schema=False)
            add_page(self)
        super().setup()

    async def _show_openapi(self, request: Request) -> Response:
        if not self._openapi_json:
            prefix = request.scope.get("root_path", "")
            servers = {"servers": [{"url": prefix}]} if prefix else {}
            # In a thread: it takes a second, in which other requests go on.
            document = await run_in_threadpool(self.openapi)
            self._openapi_json = bytes(JSONResponse({**document, **servers}).body)
        return Response(self._openapi_json, media_type="application/json")

    def openapi(self) -> Document:
        """The document, made once, whichever threads ask for it."""
        with self._making:
            if self.openapi_schema is None:
                self.openapi_schema = self._make_openapi()
        return self.openapi_schema

    def _make_openapi(self) -> Document:
        document = self._describe()
        dialects: Sequence[Dialect] = self.state.dialects
        _add_schemas(document, dialects)
        document["components"]["securitySchemes"] = {_BEARER: _BEARER_SCHEME}
        schemas = document["components"]["schemas"]
        name_examples(schemas, _KINDS, self._catalogue)
        complete_requests(
            schemas, [*_KINDS, *_OTHER_KINDS, *(kind for dialect in dialects for kind in dialect.bodies)]
        )
        for kind in (EditRequest, VariationRequest):
            name = kind.__name__
            schemas[form_name(kind)] = form_schema(schemas[name], _examples()[name], schemas)
        _describe_operations(document, dialects)
        remove_unused(document)
        return document


def _add_schemas(document: Document, dialects: Sequence[Dialect]) -> None:
    """Add the schemas that bodies and errors refer to."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    found = json.loads(_definitions(tuple(dialects)))
    schemas |= {name: schema for name, schema in found.items() if name not in schemas}


@cache
def _definitions(dialects: tuple[Dialect, ...]) -> str:
    """Those schemas by their names, as JSON; once for all applications of a process, like the routes."""
    models: list[tuple[type[BaseModel], str]] = [(kind, "validation") for kind in (*_KINDS, *_OTHER_KINDS)]
    models += [(dialect.model, "serialization") for dialect in (NATIVE, *dialects)]
    models += [(kind, "validation") for dialect in dialects for kind in dialect.bodies]
    _, definitions = models_json_schema(models, ref_template=REFERENCE)  # type: ignore[arg-type]
    return json.dumps(definitions["$defs"])


def _describe_operations(document: Document, dialects: Sequence[Dialect]) -> None:
    """Complete what each path and webhook says of itself."""
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _describe_security(operation)
            _describe_errors(operation, dialect_of(path, dialects))
            _describe_answers(operation, schemas)
            _describe_bodies(operation, schemas)
            _describe_parameters(operation, schemas)
            _summarize(operation)
    for operations in document.get("webhooks", {}).values():
        for operation in operations.values():
            _describe_parameters(operation, schemas)
            _summarize(operation)


def _describe_security(operation: Document) -> None:
    """Require an API key where a missing one is an error, unless the route says otherwise itself."""
    if str(HTTPStatus.UNAUTHORIZED.value) in operation["responses"]:
        operation.setdefault("security", [{_BEARER: []}])


def _describe_errors(operation: Document, dialect: Dialect) -> None:
    """Replace the placeholders of `problems` by the dialect's schema, with an example for each error."""
    responses = operation["responses"]
    if responses.get("422", {}).get("content", {}).keys() == {"application/json"}:
        del responses["422"]  # the framework's own schema, which it adds to every route with parameters
    responses |= {str(status): text for status, text in problems(500).items()}
    for status, response in responses.items():
        if PROBLEM not in response.get("content", ()):
            continue
        rows = [row for row in ROWS.values() if str(row.status) == status]
        schema = {"$ref": REFERENCE.format(model=dialect.model.__name__)}
        examples = {row.code: {"summary": row.title, "value": _failure(row, dialect)} for row in rows}
        response["content"] = {dialect.media_type: {"schema": schema, "examples": examples}}


@cache
def _failure(row: Row, dialect: Dialect) -> object:
    """The body of an error, as hundreds of answers have it."""
    problem = FieldProblem("width", "must be a multiple of 8, got 68 (nearest: 64, 72)", [64, 72])
    named = (problem,) if row.status == HTTPStatus.UNPROCESSABLE_ENTITY else ()
    return json.loads(bytes(dialect.render(Failure(row, row.title, named), _REQUEST_ID).body))


def _describe_answers(operation: Document, schemas: Document) -> None:
    """Describe answers by their schemas where the routes do not; the framework says that they are successful."""
    for status, response in operation["responses"].items():
        if response["description"] != _UNDESCRIBED:
            continue
        names = [
            content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            for content in response.get("content", {}).values()
        ]
        described = next((schemas[name]["description"] for name in names if name in schemas), None)
        response["description"] = described or HTTPStatus(int(status)).description


def _describe_bodies(operation: Document, schemas: Document) -> None:
    """Add an example to every named request and response body."""
    for part in (operation.get("requestBody", {}), *operation["responses"].values()):
        for media_type, content in part.get("content", {}).items():
            schema = content.get("schema", {})
            name = schema.get("items", schema).get("$ref", "").rpartition("/")[2]
            example = _example_of(name, schemas)
            if example is not None and "items" in schema:
                example = [example]
            if example is not None and media_type == "application/json" and "examples" not in content:
                content["example"] = example


def _example_of(name: str, schemas: Document) -> Any:
    """The example of a schema; for a list, one with a single entry. None where there is none."""
    entries = schemas.get(name, {}).get("properties", {}).get("data", {}).get("items", {})
    if name.endswith("List") and "$ref" in entries and name not in _examples():
        entry = _example_of(entries["$ref"].rpartition("/")[2], schemas)
        return entry and {"object": "list", "data": [entry], "has_more": False, "next_cursor": None}
    return _examples().get(name)


@cache
def _examples() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files(__package__).joinpath("examples.json").read_text(encoding="utf-8"))
    return found


def _summarize(operation: Document) -> None:
    """Let the first clause of a description be the summary; the framework's is the name of a function."""
    text = " ".join(operation.get("description", "").split())
    if text:
        operation["summary"] = re.split(r"[.:;](?: |$)", text)[0]


def _describe_parameters(operation: Document, schemas: Document) -> None:
    """Complete the descriptions, and remove null from types where the word is not understood, outside queries."""
    for parameter in operation.get("parameters", ()):
        complete_parameter(parameter, schemas)
        if parameter["in"] != "query":
            parameter["schema"] = without_null(parameter["schema"])
