"""The OpenAPI document: every reference resolves, bodies and problems are in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi.testclient import TestClient


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
    assert {"202", "400", "413", "415", "422", "503", "default"} <= submit["responses"].keys()
    assert "application/problem+json" in submit["responses"]["422"]["content"]
    assert "multipart/form-data" in paths["/v1/uploads"]["post"]["requestBody"]["content"]
    assert "image/webp" in paths["/v1/jobs/{id}/images/{n}"]["get"]["responses"]["200"]["content"]


def test_every_operation_has_a_name_of_its_own(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    names = [operation["operationId"] for path in paths.values() for operation in path.values()]

    assert len(names) == len(set(names))


def test_the_framework_s_own_error_shape_is_not_promised(client: TestClient) -> None:
    assert "HTTPValidationError" not in client.get("/openapi.json").text
