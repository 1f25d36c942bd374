"""Reference pages of the HTTP API, from the OpenAPI document that the service serves and from its table of errors.

Asks no running service.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from app.errors import ROWS
from app.main import create_app
from app.settings import ApiSettings
from contracts.jobs.failures import RETRYABLE, FailureCode
from docs.site.markdown import attributes, summary, table

Schema = dict[str, Any]

_REQUESTS = "Request"
#: Of a route that makes a job of one task.
_PATH = re.compile(r"/v1/[a-z0-9]+")
_METHODS = ("get", "post", "put", "patch", "delete")


def read_document() -> Schema:
    """Return the OpenAPI document of a service with the built-in catalogue; asks no service."""
    return dict(create_app(ApiSettings()).openapi())


def requests_page(document: Schema) -> str:
    """Return the page of request fields: each once, with the tasks that take it."""
    schemas: dict[str, Schema] = document["components"]["schemas"]
    tasks = {_task(path): _body(operations["post"]) for path, operations in _tasks(document)}
    lines = [
        "# Request fields",
        "",
        "Fields of `POST /v1/{task}`. `/v1/models/{id}` has the same as JSON Schema for one model, with its "
        "limits and defaults. A field that a task or a model does not take is refused, never ignored.",
        "",
    ]
    takers: dict[str, list[str]] = {}
    fields: dict[str, Schema] = {}
    for task, name in tasks.items():
        for field, part in schemas[name]["properties"].items():
            takers.setdefault(field, []).append(task)
            fields.setdefault(field, part)
    by = {field: "all" if len(names) == len(tasks) else ", ".join(names) for field, names in takers.items()}
    rows = [[f"`{field}`", _type(part), by[field], _text(part)] for field, part in fields.items()]
    lines += [table(["field", "type", "tasks", "meaning"], rows)]
    for name in sorted(_objects(schemas, tasks.values())):
        lines += [f"## {name}", "", str(schemas[name].get("description", "")), "", _properties(schemas[name])]
    return "\n".join(lines)


def answers_page(document: Schema) -> str:
    """Return the page of what answers hold: every object of the document that is not a request."""
    schemas: dict[str, Schema] = document["components"]["schemas"]
    named = {_body(operations["post"]) for _, operations in _tasks(document)}
    requests = {*named, *_objects(schemas, named)}
    lines = ["# Answers", "", "Objects in the service's answers. Ids, times and numbers are JSON's own types.", ""]
    for name, schema in sorted(schemas.items()):
        if "properties" in schema and name not in requests and not name.endswith((_REQUESTS, "Form")):
            lines += [f"## {name}", "", str(schema.get("description", "")), "", _properties(schema)]
    return "\n".join(lines)


def routes_page(document: Schema) -> str:
    """Return the page of routes, by their tag."""
    lines = ["# Routes", "", "Each can be tried out at `/docs` of a running service.", ""]
    for tag in document["tags"]:
        rows = [
            [f"`{method.upper()} {path}`", operation.get("description", "")]
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if method in _METHODS and tag["name"] in operation.get("tags", ())
        ]
        lines += [f"## {tag['name']}", "", tag.get("description", ""), "", table(["route", "what it does"], rows)]
    return "\n".join(lines)


def errors_page() -> str:
    """Return the page of errors of calls and of jobs."""
    calls = sorted(((row, kind) for kind, row in ROWS.items()), key=lambda pair: pair[0].status)
    meaning = attributes(FailureCode)
    return "\n".join(
        [
            "# Errors",
            "",
            "A call that is refused answers with problem details (RFC 9457): `code` is stable, `detail` says what "
            "happened and what to do, `errors` names the fields. The routes of OpenAI's and Hugging Face's "
            "APIs answer in their forms with the same codes.",
            "",
            "## Calls",
            "",
            table(
                ["status", "code", "title", "when"],
                [[str(row.status), f"`{row.code}`", row.title, _when(kind)] for row, kind in calls],
            ),
            "## Jobs",
            "",
            "`error.code` of a job that failed, and `error.retryable`: whether the same request may succeed "
            "later.",
            "",
            table(
                ["code", "retryable", "meaning"],
                [[f"`{code}`", "yes" if code in RETRYABLE else "no", meaning[code.name]] for code in FailureCode],
            ),
        ]
    )


def _when(kind: type[Exception]) -> str:
    return summary(kind) if kind.__module__.startswith(("app", "contracts")) else ""


def _tasks(document: Schema) -> Iterator[tuple[str, Mapping[str, Schema]]]:
    """Routes that make a job of one task."""
    for path, operations in document["paths"].items():
        if _PATH.fullmatch(path) and "post" in operations and _body(operations["post"]).endswith(_REQUESTS):
            yield path, operations


def _task(path: str) -> str:
    return path.removeprefix("/v1/")


def _body(operation: Schema) -> str:
    """Name of the schema of a JSON body; empty if there is none of a name."""
    content = operation.get("requestBody", {}).get("content", {})
    return str(content.get("application/json", {}).get("schema", {}).get("$ref", "")).rpartition("/")[2]


def _objects(schemas: Mapping[str, Schema], names: Iterable[str]) -> set[str]:
    """Names of the objects inside these."""
    found: set[str] = set()
    going = [reference for name in names for reference in _references(schemas[name])]
    while going:
        name = going.pop()
        if name not in found and "properties" in schemas[name]:
            found.add(name)
            going += _references(schemas[name])
    return found


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"].rpartition("/")[2]] if isinstance(part.get("$ref"), str) else []
        return own + [name for inner in part.values() for name in _references(inner)]
    return [name for inner in part for name in _references(inner)] if isinstance(part, list) else []


def _properties(schema: Schema) -> str:
    rows = [[f"`{name}`", _type(part), _text(part)] for name, part in schema["properties"].items()]
    return table(["field", "type", "meaning"], rows)


def _text(part: Schema) -> str:
    return str(part.get("description", ""))


def _type(part: Schema) -> str:
    """A schema's type in words: `integer`, `list of Lora`, `plain or a1111`."""
    if "$ref" in part:
        return str(part["$ref"]).rpartition("/")[2]
    if "anyOf" in part or "oneOf" in part:
        branches = [branch for branch in part.get("anyOf") or part["oneOf"] if branch != {"type": "null"}]
        return " or ".join(dict.fromkeys(map(_type, branches)))
    if "enum" in part:
        return " or ".join(f"`{value}`" for value in part["enum"])
    if "const" in part:
        return f"`{part['const']}`"
    if part.get("type") == "array":
        return f"list of {_type(part['items'])}" if "items" in part else "list"
    return str(part.get("type", "any"))
