"""The secret that verifies an owner's webhooks, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore, Scope
from contracts.errors import SettingsError
from contracts.outbound.signing import Secret, Secrets
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings


@pytest.fixture
def tokens(queue: JobQueue) -> dict[str, dict[str, str]]:
    """The headers of two owners, and of a key that may only administrate."""
    keys = ApiKeyStore(queue.connection)
    made = {name: keys.create(name, name)[1] for name in ("ann", "bob")}
    made["admin"] = keys.create("admin", "ann", scopes={Scope.ADMIN})[1]
    return {name: {"Authorization": f"Bearer {token}"} for name, token in made.items()}


def _show(client: TestClient, headers: dict[str, str]) -> Any:
    return client.get("/v1/webhooks/secret", headers=headers)


def test_each_owner_sees_and_replaces_only_its_own_secret(
    client: TestClient, tokens: dict[str, dict[str, str]], queue: JobQueue, settings: SharedSettings
) -> None:
    ann, bob = (_show(client, tokens[name]).json()["secret"] for name in ("ann", "bob"))
    assert ann != bob
    assert _show(client, tokens["ann"]).headers["Cache-Control"] == "no-store"
    secrets = Secrets(queue.connection, settings)
    assert [secret.write() for secret in secrets.current("ann")] == [ann]

    headers = tokens["ann"] | {"Idempotency-Key": "k"}
    new, again = (client.post("/v1/webhooks/secret", headers=headers) for _ in range(2))

    assert new.json() == again.json() == _show(client, tokens["ann"]).json() != {"secret": ann}
    assert again.headers["Idempotency-Replayed"] == "true"
    assert [secret.write() for secret in secrets.current("ann")] == [new.json()["secret"], ann]
    assert _show(client, tokens["bob"]).json()["secret"] == bob


def test_a_key_without_the_scope_neither_sees_nor_replaces_a_secret(
    client: TestClient, tokens: dict[str, dict[str, str]]
) -> None:
    assert _show(client, tokens["admin"]).status_code == 403
    assert client.post("/v1/webhooks/secret", headers=tokens["admin"]).status_code == 403
    assert client.get("/v1/webhooks/secret").status_code == 401


def test_a_secret_that_is_derived_from_the_operators_is_replaced_by_the_operator(settings: SharedSettings) -> None:
    configured = Secret(b"x" * 32)
    shared = SharedSettings.model_validate(settings.model_dump() | {"webhook_secret": configured.write()})
    with TestClient(create_app(ApiSettings(shared=shared))) as client:
        assert client.get("/v1/webhooks/secret").json() == {"secret": configured.derive("local").write()}
        refused = client.post("/v1/webhooks/secret")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "DARKROOM_WEBHOOK_PREVIOUS_SECRET" in refused.json()["detail"]


def test_an_api_with_an_invalid_secret_does_not_start(settings: SharedSettings) -> None:
    shared = SharedSettings.model_validate(settings.model_dump() | {"webhook_secret": "hunter2"})
    with pytest.raises(SettingsError, match="DARKROOM_WEBHOOK_SECRET"):
        create_app(ApiSettings(shared=shared))
