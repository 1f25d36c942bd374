"""`darkroom webhooks` and `darkroom dispatcher`, against a real Redis."""

from __future__ import annotations

import os

import pytest

from cli.main import main
from contracts.auth.api_keys import ApiKeyStore
from contracts.outbound.signing import Secret, Secrets
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from tests.support.forked_programs import ForkedProgram


@pytest.fixture(autouse=True)
def _redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", redis_url)


def test_the_secret_is_shown_and_replaced(
    capsys: pytest.CaptureFixture[str], queue: JobQueue, settings: SharedSettings
) -> None:
    printed = []
    for words in (["secret"], ["secret"], ["replace-secret"], ["secret"]):
        assert main(["webhooks", *words]) == 0
        printed.append(capsys.readouterr().out.strip())

    assert printed[0] == printed[1] != printed[2] == printed[3]
    current = Secrets(queue.connection, settings).current("local")
    assert [secret.write() for secret in current] == [printed[2], printed[0]]


def test_with_keys_the_owner_must_be_named_and_exist(
    capsys: pytest.CaptureFixture[str], queue: JobQueue, settings: SharedSettings
) -> None:
    ApiKeyStore(queue.connection).create("a", "ann")
    assert main(["webhooks", "secret"]) == 1
    assert "--owner" in capsys.readouterr().err
    assert main(["webhooks", "secret", "--owner", "bob"]) == 1
    assert "bob" in capsys.readouterr().err
    assert main(["webhooks", "secret", "--owner", "ann"]) == 0
    (secret,) = Secrets(queue.connection, settings).current("ann")
    assert capsys.readouterr().out.strip() == secret.write()


def test_a_secret_derived_from_that_of_the_settings_is_shown_and_not_replaced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "whsec_" + "QUFB" * 11
    monkeypatch.setenv("DARKROOM_WEBHOOK_SECRET", secret)

    assert main(["webhooks", "secret"]) == 0
    assert capsys.readouterr().out.strip() == Secret.read(secret).derive("local").write()
    assert main(["webhooks", "replace-secret"]) == 1
    assert "DARKROOM_WEBHOOK_SECRET" in capsys.readouterr().err


def test_a_dispatcher_that_cannot_start_says_why_in_one_line() -> None:
    process = ForkedProgram("cli.main", os.environ | {"DARKROOM_WEBHOOK_SECRET": "hunter2"}, words=["dispatcher"])
    _, error = process.communicate(timeout=60)

    assert process.returncode == 1
    assert error.startswith("darkroom dispatcher: ")
    assert len(error.splitlines()) == 1
    assert "hunter2" not in error
