"""API keys on a real Redis: creating, authenticating, rate limits, revoking; the secret is never stored."""

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


def test_a_token_authenticates_its_key(keys: ApiKeyStore) -> None:
    key, token = keys.create(
        "ci", scopes={Scope.ADMIN}, calls_per_minute=5, max_jobs=2, highest_priority=Priority.LOW
    )

    found = keys.authenticate(token)

    assert found is not None
    assert found == key
    assert (found.name, found.owner, list(found.scopes)) == ("ci", key.id, [Scope.ADMIN])
    assert (found.calls_per_minute, found.max_jobs, found.highest_priority) == (5, 2, Priority.LOW)


def test_only_the_exact_token_authenticates_a_key(keys: ApiKeyStore) -> None:
    key, token = keys.create("a")
    _, other = keys.create("b")
    secret, other_secret = token.rpartition(key.id + "_")[2], other[len("dk_") + 12 + 1 :]

    for wrong in ("", "x", token[:-1], token + "x", f"dk_{key.id}_{other_secret}", secret, key.id, key.sha256):
        assert keys.authenticate(wrong) is None
    assert keys.authenticate(f"dk_{key.id}_{key.sha256[:43]}") is None


def test_redis_stores_only_a_hash_of_the_secret(keys: ApiKeyStore, queue: JobQueue) -> None:
    key, token = keys.create("a")
    secret = token.removeprefix(f"dk_{key.id}_")

    stored = json.dumps([queue.connection.hgetall(name) for name in queue.connection.keys("darkroom:key:*")])

    assert len(secret) == 43  # 256 bits
    assert key.sha256 in stored
    assert secret not in stored
    assert key.sha256 not in repr(key)


def test_a_revoked_key_is_refused_and_stays_listed(keys: ApiKeyStore) -> None:
    key, token = keys.create("a")
    other, _ = keys.create("b")

    revoked = keys.revoke(key.id)

    assert keys.authenticate(token) is None
    assert revoked.revoked_at is not None
    assert keys.revoke(key.id) == revoked
    assert [found.id for found in keys.find_all()] == [key.id, other.id]
    assert [found.revoked_at is None for found in keys.find_all()] == [False, True]


def test_keys_still_exist_after_all_are_revoked(keys: ApiKeyStore) -> None:
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
    "limits",
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
    ids=lambda limits: str(next(iter(limits.items()))),
)
def test_a_key_with_invalid_limits_is_not_created(keys: ApiKeyStore, limits: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        keys.create("a", **limits)  # type: ignore[arg-type]
    assert not keys.exist()


def test_the_last_use_is_stored_at_most_once_a_minute(keys: ApiKeyStore, queue: JobQueue) -> None:
    key, token = keys.create("a")
    row = f"darkroom:key:{key.id}"
    assert keys.authenticate(token.replace(key.id, "0" * 12)) is None
    assert keys.find_all()[0].last_used_at is None

    keys.authenticate(token)
    first = queue.connection.hget(row, "last_used_at")
    keys.authenticate(token)
    assert queue.connection.hget(row, "last_used_at") == first is not None
    queue.connection.hset(row, "last_used_at", str(key.created_at - 61))
    keys.authenticate(token)

    assert float(str(queue.connection.hget(row, "last_used_at"))) >= key.created_at


def test_the_rate_limit_holds_for_any_sixty_seconds(keys: ApiKeyStore, queue: JobQueue) -> None:
    key, _ = keys.create("a", calls_per_minute=3)
    assert [keys.count_call(key.id, 3).remaining for _ in range(2)] == [2, 1]
    forget_calls_before(queue.connection, key, 40)
    assert keys.count_call(key.id, 3).remaining == 0

    with pytest.raises(RateExceeded) as refused:
        keys.count_call(key.id, 3)

    # The refused call does not count: the wait is until the first two, forty seconds old, are a minute old.
    assert 15 <= refused.value.retry_after_seconds <= 20
    forget_calls_before(queue.connection, key, refused.value.retry_after_seconds)
    assert keys.count_call(key.id, 3).remaining == 1


def test_each_key_has_its_own_rate_limit(keys: ApiKeyStore) -> None:
    key, _ = keys.create("a", calls_per_minute=1)
    other, _ = keys.create("b", calls_per_minute=1)
    keys.count_call(key.id, 1)

    assert keys.count_call(other.id, 1).remaining == 0
    with pytest.raises(RateExceeded):
        keys.count_call(key.id, 1)
