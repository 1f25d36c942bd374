"""Query parameters of every route: those that it does not have are refused by name, before anything is done."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient


def operations(client: TestClient) -> list[tuple[str, str]]:
    """Method and path of every documented call."""
    assert isinstance(client.app, FastAPI)
    paths = client.app.openapi()["paths"]
    return sorted((method.upper(), re.sub(r"{\w+}", "0", path)) for path in paths for method in paths[path])


def names_in(body: dict[str, Any]) -> list[str]:
    """The fields that an error names, in the form of our routes or of another service's."""
    match body:
        case {"error": str(text), "error_type": _}:
            return [text.partition(":")[0]]
        case {"error": {"param": name}}:
            return [name]
        case {"detail": [*problems]}:
            return [".".join(problem["loc"][1:]) for problem in problems]
    return [problem["field"] for problem in body["errors"]]


def test_no_call_ignores_a_query_parameter_that_it_does_not_have(client: TestClient) -> None:
    found = operations(client)
    assert len(found) > 25
    calls = [(*one, "surprise=1", "surprise") for one in found]
    calls += [("GET", "/v1/jobs", "Limit", "Limit"), ("GET", "/v1/jobs", "%00=&", "\x00")]
    for method, path, query, name in calls:
        response = client.request(method, f"{path}?{query}")
        assert (method, path, response.status_code) == (method, path, 422)
        assert names_in(response.json()) == [name]
        assert "is not a query parameter of this call" in response.text


def test_fields_of_a_body_are_not_taken_from_the_query_and_nothing_is_queued(client: TestClient) -> None:
    response = client.post("/v1/txt2img?seed=3&seed=4&steps=2", json={"prompt": "a red circle"})
    assert response.status_code == 422
    assert names_in(response.json()) == ["seed", "steps"]
    assert "go into its body" in response.text
    assert client.get("/v1/jobs").json()["data"] == []


def test_known_parameters_are_told_and_may_be_given_once(client: TestClient) -> None:
    unknown, twice = (client.get(f"/v1/jobs?{query}") for query in ("metadata=x", "limit=1&limit=2"))
    assert unknown.json()["errors"][0]["allowed"] == [
        *("cursor", "include", "limit", "metadata.KEY", "model", "status", "task")
    ]
    assert twice.json()["errors"] == [{"field": "limit", "message": "given 2 times; give it once"}]
    assert client.get("/v1/jobs?limit=1&metadata.a=1&metadata.b=2&status=null").status_code == 200
