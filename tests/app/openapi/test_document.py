"""The OpenAPI document is valid and complete: every body, response and error is in it, with a valid example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.openapi.document import DocumentedApi

Json = dict[str, Any]


@pytest.fixture
def document(client: TestClient) -> Json:
    found: Json = client.get("/openapi.json").json()
    return found


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_every_reference_resolves(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    found = set(references(document))

    assert "#/components/schemas/InpaintRequest" in found
    assert {name.removeprefix("#/components/schemas/") for name in found} <= document["components"][
        "schemas"
    ].keys()


def test_bodies_and_problems_are_documented(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    submit = paths["/v1/controlnet"]["post"]
    body = submit["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ControlNetRequest"}
    assert {"202", "400", "413", "415", "422", "500", "503"} <= submit["responses"].keys()
    assert "application/problem+json" in submit["responses"]["422"]["content"]
    assert "multipart/form-data" in paths["/v1/uploads"]["post"]["requestBody"]["content"]
    assert "image/webp" in paths["/v1/jobs/{id}/images/{n}"]["get"]["responses"]["200"]["content"]


def test_operation_ids_are_unique(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    names = [operation["operationId"] for path in paths.values() for operation in path.values()]

    assert len(names) == len(set(names))


def test_the_error_schema_of_the_framework_is_not_documented(client: TestClient) -> None:
    assert "HTTPValidationError" not in client.get("/openapi.json").text


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def bodies(document: Json) -> Iterator[tuple[str, Json]]:
    """Yield every JSON body and event stream: where it is, and its media type object."""
    for name, operation in operations(document):
        parts = {"request": operation.get("requestBody", {}), **operation["responses"]}
        for status, part in parts.items():
            for media_type, content in part.get("content", {}).items():
                if "json" in media_type or media_type == "text/event-stream":
                    yield f"{name} {status} {media_type}", content


def examples(content: Json) -> list[Any]:
    if "example" in content:
        return [content["example"]]
    return [example["value"] for example in content.get("examples", {}).values()]


def test_the_document_is_valid(document: Json) -> None:
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_body_has_an_example_that_matches_its_schema(document: Json) -> None:
    wrong = []
    for location, content in bodies(document):
        schema = {**content["schema"], "components": document["components"]}
        found = examples(content)
        if not found and content["schema"] != {}:
            wrong.append(f"{location}: has no example; add one to app/examples.json")
        wrong += [f"{location}: {error.message}" for example in found for error in _errors(schema, example)]

    assert wrong == []


def _errors(schema: Json, example: Any) -> Iterator[Any]:
    validator: Any = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    yield from validator.iter_errors(example)


def test_request_schemas_list_the_entries_of_the_catalogue(document: Json) -> None:
    schemas = document["components"]["schemas"]
    for name in ("Txt2ImgRequest", "EditRequest"):
        model, scheduler = (schemas[name]["properties"][field]["anyOf"][0] for field in ("model", "scheduler"))
        assert model["enum"] == ["shapes-sdxl", "shapes-sd3", "shapes-flux"]
        assert {"euler", "flow_euler"} <= set(scheduler["enum"])
    assert "shapes-flux-silhouette" in schemas["Control"]["properties"]["controlnet"]["enum"]


def test_every_error_is_documented_in_the_dialect_of_its_path(document: Json) -> None:
    for name, operation in operations(document):
        media_type = "application/json" if "/v1/images/" in name else "application/problem+json"
        errors = {status: part for status, part in operation["responses"].items() if status >= "400"}
        assert "500" in errors, name
        for status, part in errors.items():
            ((kind, content),) = part["content"].items()
            assert (kind, len(content["examples"]) > 0) == (media_type, True), f"{name} {status}"


def test_a_method_that_is_not_allowed_is_answered_with_the_allowed_ones(client: TestClient) -> None:
    for method, path, allowed in (
        ("PUT", "/v1/jobs/1", "DELETE, GET"),
        ("GET", "/v1/txt2img", "POST"),
        ("PATCH", "/v1/jobs/1/cancel", "POST"),
        ("DELETE", "/openapi.json", "GET, HEAD"),
    ):
        response = client.request(method, path)
        assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
        assert sorted(response.headers["allow"].split(", ")) == allowed.split(", ")


def test_the_document_is_rendered_once(client: TestClient) -> None:
    first = client.get("/openapi.json")
    cast("DocumentedApi", client.app).openapi_schema = {"info": "another document"}

    assert client.get("/openapi.json").content == first.content
    assert first.headers["content-type"] == "application/json"
