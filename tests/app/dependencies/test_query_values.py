"""Odd values of every query parameter: the word null means absent, and none is an unexpected error."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import FastAPI
from fastapi.testclient import TestClient

ODD = ("-1", "9" * 500)


def parameters(client: TestClient) -> Iterator[tuple[str, str]]:
    """Path and name of each query parameter of the GET routes that name nothing in their path."""
    app = client.app
    assert isinstance(app, FastAPI)
    for path, operations in app.openapi()["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", ()):
            if "{" not in path and parameter["in"] == "query":
                yield path, parameter["name"]


def test_the_word_null_means_absent_in_every_query_and_no_value_is_an_unexpected_error(client: TestClient) -> None:
    found = list(parameters(client))

    nulls = [(path, name, client.get(path, params={name: "null"}).status_code) for path, name in found]
    odd = [(*one, value, client.get(one[0], params={one[1]: value}).status_code) for one in found for value in ODD]

    assert {("/v1/jobs", "limit"), ("/v1/admin/queues", "owner"), ("/v1/admin/keys", "cursor")} <= set(found)
    assert [answer for answer in nulls if answer[-1] != 200] == []
    assert [answer for answer in odd if answer[-1] >= 500] == []
