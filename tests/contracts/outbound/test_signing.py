"""Webhook secrets and signatures, checked with the reference library."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Mapping

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from contracts.errors import Conflict, SettingsError
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


def test_all_processes_share_the_secret_of_an_owner(queue: JobQueue, settings: SharedSettings) -> None:
    first, second = (Secrets(queue.connection, settings) for _ in range(2))

    assert first.current("ann") == second.current("ann")
    assert first.current("ann")[0].write().startswith("whsec_")
    assert len(first.current("ann")[0].key) == 32


def test_after_a_replacement_both_secrets_verify_for_a_while(queue: JobQueue, settings: SharedSettings) -> None:
    secrets = Secrets(queue.connection, settings)
    (old,) = secrets.current("ann")
    new = secrets.replace("ann")
    assert new != old

    headers = sign(secrets.current("ann"), "msg_1", int(time.time()), BODY)
    assert secrets.current("ann") == [new, old]
    assert verifies(new, headers)
    assert verifies(old, headers)

    key = "darkroom:webhook_secrets:ann"
    end = queue.connection.zscore(key, old.write()) or 0
    assert 0 < end - queue.now() <= OVERLAP_SECONDS
    queue.connection.zadd(key, {old.write(): 1})  # it has expired
    assert secrets.current("ann") == [new]


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_*", "c2VjcmV0" * 6, "whsec_" + "A" * 88])
def test_an_invalid_secret_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        Secret.read(text)


def test_the_repr_of_a_secret_does_not_contain_it() -> None:
    assert "xxxx" not in repr(Secret(b"x" * 32))


def test_each_owner_has_a_secret_of_its_own(queue: JobQueue, settings: SharedSettings) -> None:
    configured = Secret(b"x" * 32)
    for secrets in (Secrets(queue.connection, settings), Secrets(queue.connection, _with(settings, configured))):
        (anns,), (bobs,) = secrets.current("ann"), secrets.current("bob")
        headers = sign([anns], "msg_1", int(time.time()), BODY)
        assert verifies(anns, headers)
        assert not verifies(bobs, headers)
        assert not verifies(configured, headers)


def test_replacing_an_owners_secret_changes_no_other(queue: JobQueue, settings: SharedSettings) -> None:
    secrets = Secrets(queue.connection, settings)
    bobs = secrets.current("bob")
    secrets.replace("ann")
    assert secrets.current("bob") == bobs


def test_replacing_a_secret_again_and_again_leaves_two(queue: JobQueue, settings: SharedSettings) -> None:
    secrets = Secrets(queue.connection, settings)
    made = [secrets.replace("ann") for _ in range(4)]
    assert secrets.current("ann") == [made[3], made[2]]


def _with(settings: SharedSettings, current: Secret | None, previous: Secret | None = None) -> SharedSettings:
    names = {"webhook_secret": current, "webhook_previous_secret": previous}
    given = {name: secret.write() for name, secret in names.items() if secret is not None}
    return SharedSettings.model_validate(settings.model_dump() | given)


def test_secrets_are_derived_from_that_of_the_settings_and_from_the_one_before(
    queue: JobQueue, settings: SharedSettings
) -> None:
    current, previous = Secret(b"x" * 32), Secret(b"y" * 32)
    secrets = Secrets(queue.connection, _with(settings, current, previous))

    assert secrets.current("ann") == [current.derive("ann"), previous.derive("ann")]
    # As any HMAC library makes it: the documentation promises it.
    digest = hmac.new(b"x" * 32, b"darkroom webhook secret\nann", "sha256").digest()
    assert current.derive("ann") == Secret(digest)
    with pytest.raises(Conflict, match="DARKROOM_WEBHOOK_SECRET"):
        secrets.replace("ann")
    assert queue.connection.keys("*") == []


def test_a_previous_secret_without_a_current_one_is_refused(queue: JobQueue, settings: SharedSettings) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_WEBHOOK_PREVIOUS_SECRET"):
        Secrets(queue.connection, _with(settings, None, Secret(b"y" * 32)))


def test_an_invalid_secret_in_the_settings_is_refused(queue: JobQueue, settings: SharedSettings) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_WEBHOOK_SECRET"):
        Secrets(queue.connection, settings.model_copy(update={"webhook_secret": SecretStr("hunter2")}))
