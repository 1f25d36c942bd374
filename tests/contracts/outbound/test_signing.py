"""Webhook secrets and signatures, checked with the reference library."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from contracts.errors import SettingsError
from contracts.outbound.signing import OVERLAP_SECONDS, Secret, Secrets, sign
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings

BODY = json.dumps({"id": "é"}, ensure_ascii=False).encode()


def verifies(secret: Secret, headers: Mapping[str, str], body: bytes = BODY) -> bool:
    try:
        Webhook(secret.write()).verify(body, dict(headers))
    except WebhookVerificationError:
        return False
    return True


def test_the_reference_library_verifies_signed_messages_and_no_others() -> None:
    ours, other = Secret(b"x" * 32), Secret(b"y" * 32)
    headers = sign([ours], "msg_1", int(time.time()), BODY)

    assert verifies(ours, headers)
    assert not verifies(other, headers)
    assert not verifies(ours, headers, BODY + b" ")
    for name, value in (("webhook-id", "msg_2"), ("webhook-timestamp", str(int(time.time()) + 1))):
        assert not verifies(ours, {**headers, name: value})


def test_all_processes_share_one_secret(queue: JobQueue, settings: SharedSettings) -> None:
    first, second = (Secrets(queue.connection, settings) for _ in range(2))

    assert first.current() == second.current()
    assert first.current()[0].write().startswith("whsec_")
    assert len(first.current()[0].key) == 32


def test_after_a_replacement_both_secrets_verify_for_a_while(queue: JobQueue, settings: SharedSettings) -> None:
    secrets = Secrets(queue.connection, settings)
    (old,) = secrets.current()
    new = secrets.replace()
    assert new != old

    headers = sign(secrets.current(), "msg_1", int(time.time()), BODY)
    assert secrets.current() == [new, old]
    assert verifies(new, headers)
    assert verifies(old, headers)

    key = "darkroom:webhooks:secrets:service"
    end = queue.connection.zscore(key, old.write()) or 0
    assert 0 < end - queue.now() <= OVERLAP_SECONDS
    queue.connection.zadd(key, {old.write(): 1})  # it has expired
    assert secrets.current() == [new]


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_*", "c2VjcmV0" * 6, "whsec_" + "A" * 88])
def test_an_invalid_secret_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        Secret.read(text)


def test_the_repr_of_a_secret_does_not_contain_it() -> None:
    assert "xxxx" not in repr(Secret(b"x" * 32))


def test_a_secret_in_the_settings_is_the_only_one(queue: JobQueue, settings: SharedSettings) -> None:
    configured = Secret(b"x" * 32)
    settings = SharedSettings.model_validate(settings.model_dump() | {"webhook_secret": configured.write()})
    secrets = Secrets(queue.connection, settings)

    assert secrets.current() == [configured]
    with pytest.raises(SettingsError, match="DARKROOM_WEBHOOK_SECRET"):
        secrets.replace()
    assert queue.connection.keys("*") == []


def test_an_invalid_secret_in_the_settings_is_refused(queue: JobQueue, settings: SharedSettings) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_WEBHOOK_SECRET"):
        Secrets(queue.connection, settings.model_copy(update={"webhook_secret": SecretStr("hunter2")}))
