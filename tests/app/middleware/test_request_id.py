"""Each request has an id: the client's own if it is well-formed."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient


def test_an_id_is_generated_for_each_request(client: TestClient) -> None:
    ids = {client.get("/healthz").headers["X-Request-ID"] for _ in range(3)}

    assert len(ids) == 3


def test_the_clients_own_id_is_echoed(client: TestClient) -> None:
    response = client.get("/v1/jobs/none", headers={"X-Request-ID": "trace-1.2_3"})

    assert response.headers["X-Request-ID"] == response.json()["request_id"] == "trace-1.2_3"


def test_a_malformed_id_is_replaced(client: TestClient, subtests: pytest.Subtests) -> None:
    for sent in ["", "with space", "a" * 129, "<script>", "a;b"]:
        with subtests.test(sent=sent):
            returned = client.get("/healthz", headers={"X-Request-ID": sent}).headers["X-Request-ID"]

            assert returned != sent
            assert len(returned) == 16
