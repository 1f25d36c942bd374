"""API keys on a real Redis: made, opened, counted, revoked; and what is never written down."""

from __future__ import annotations

import json
from typing import cast

import pytest
from pydantic import ValidationError
from redis import Redis

from contracts.auth.api_keys import ApiKeyStore, Key, Scope
from contracts.errors import NotFound, RateExceeded
from contracts.queue.client import JobQueue
from contracts.requests.schema import Priority


@pytest.fixture
def keys(queue: JobQueue) -> ApiKeyStore:
    return ApiKeyStore(queue.connection)


def forget_calls_before(connection: Redis, key: Key, seconds: float) -> None:
    """Make a key's counted calls older, as if `seconds` had passed."""
    rate = f"darkroom:rate:{key.id}"
    for call in cast("list[str]", connection.zrange(rate, 0, -1)):
        connection.zincrby(rate, -seconds, call)


def test_a_token_opens_its_key(keys: ApiKeyStore) -> None:
    key, token = keys.create(
        "ci", scopes={Scope.ADMIN}, calls_per_minute=5, max_jobs=2, highest_priority=Priority.LOW
    )

    opened = keys.authenticate(token)

    assert opened is not None
    assert opened == key
    assert (opened.name, opened.owner, list(opened.scopes)) == ("ci", key.id, [Scope.ADMIN])
    assert (opened.calls_per_minute, opened.max_jobs, opened.highest_priority) == (5, 2, Priority.LOW)


def test_nothing_but_the_token_opens_a_key(keys: ApiKeyStore) -> None:
    key, token = keys.create("a")
    _, other = keys.create("b")
    secret, another = token.rpartition(key.id + "_")[2], other[len("dk_") + 12 + 1 :]

    for wrong in ("", "x", token[:-1], token + "x", f"dk_{key.id}_{another}", secret, key.id, key.sha256):
        assert keys.authenticate(wrong) is None
    assert keys.authenticate(f"dk_{key.id}_{key.sha256[:43]}") is None


def test_redis_holds_a_hash_and_never_the_secret(keys: ApiKeyStore, queue: JobQueue) -> None:
    key, token = keys.create("a")
    secret = token.removeprefix(f"dk_{key.id}_")

    held = json.dumps([queue.connection.hgetall(name) for name in queue.connection.keys("darkroom:key:*")])

    assert len(secret) == 43  # 256 bits
    assert key.sha256 in held
    assert secret not in held
    assert key.sha256 not in repr(key)


def test_a_revoked_key_opens_nothing_and_stays_on_the_list(keys: ApiKeyStore) -> None:
    key, token = keys.create("a")
    kept, _ = keys.create("b")

    revoked = keys.revoke(key.id)

    assert keys.authenticate(token) is None
    assert revoked.revoked_at is not None
    assert keys.revoke(key.id) == revoked
    assert [one.id for one in keys.find_all()] == [key.id, kept.id]
    assert [one.revoked_at is None for one in keys.find_all()] == [False, True]


def test_a_service_that_had_keys_never_has_none(keys: ApiKeyStore) -> None:
    assert not keys.exist()
    key, _ = keys.create("a")
    assert keys.exist()

    keys.revoke(key.id)

    assert keys.exist()


def test_an_unknown_key_cannot_be_revoked(keys: ApiKeyStore) -> None:
    with pytest.raises(NotFound, match="key 'abc' does not exist"):
        keys.revoke("abc")
    assert not keys.exist()


@pytest.mark.parametrize(
    "wrong",
    [
        {"owner": "a:b"},
        {"owner": "a" * 65},
        {"calls_per_minute": 0},
        {"max_jobs": 0},
        {"max_jobs": 1001},
        {"scopes": set()},
        {"scopes": {"root"}},
        {"highest_priority": "urgent"},
    ],
    ids=lambda wrong: str(next(iter(wrong.items()))),
)
def test_a_key_out_of_range_is_not_made(keys: ApiKeyStore, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        keys.create("a", **wrong)  # type: ignore[arg-type]
    assert not keys.exist()


def test_use_is_noted_within_a_minute(keys: ApiKeyStore, queue: JobQueue) -> None:
    key, token = keys.create("a")
    place = f"darkroom:key:{key.id}"
    assert keys.authenticate(token.replace(key.id, "0" * 12)) is None
    assert keys.find_all()[0].last_used_at is None

    keys.authenticate(token)
    first = queue.connection.hget(place, "last_used_at")
    keys.authenticate(token)
    assert queue.connection.hget(place, "last_used_at") == first is not None
    queue.connection.hset(place, "last_used_at", str(key.created_at - 61))
    keys.authenticate(token)

    assert float(str(queue.connection.hget(place, "last_used_at"))) >= key.created_at


def test_a_rate_holds_in_any_sixty_seconds(keys: ApiKeyStore, queue: JobQueue) -> None:
    key, _ = keys.create("a", calls_per_minute=3)
    assert [keys.count_call(key.id, 3).remaining for _ in range(2)] == [2, 1]
    forget_calls_before(queue.connection, key, 40)
    assert keys.count_call(key.id, 3).remaining == 0

    with pytest.raises(RateExceeded) as refused:
        keys.count_call(key.id, 3)

    # What did not count is not waited for: the first two are forty seconds old.
    assert 15 <= refused.value.retry_after_seconds <= 20
    forget_calls_before(queue.connection, key, refused.value.retry_after_seconds)
    assert keys.count_call(key.id, 3).remaining == 1


def test_each_key_has_its_own_rate(keys: ApiKeyStore) -> None:
    key, _ = keys.create("a", calls_per_minute=1)
    other, _ = keys.create("b", calls_per_minute=1)
    keys.count_call(key.id, 1)

    assert keys.count_call(other.id, 1).remaining == 0
    with pytest.raises(RateExceeded):
        keys.count_call(key.id, 1)
