"""Lists are limited for each caller; reads of one job never are."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.limits.list_rate import ListRate
from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore, Scope
from contracts.errors import RateExceeded
from contracts.queue.client import JobQueue
from tests.support.requests import submit


def test_a_tenth_of_a_minutes_calls_may_come_at_once_and_then_as_many_as_time_allows() -> None:
    now = [0.0]
    rate = ListRate(60, lambda: now[0])
    assert [rate.count("a").remaining for _ in range(6)] == [5, 4, 3, 2, 1, 0]
    with pytest.raises(RateExceeded) as caught:
        rate.count("a")
    assert (caught.value.calls_per_minute, caught.value.retry_after_seconds) == (60, 1)
    assert rate.count("b").remaining == 5
    now[0] = 2.0
    assert [rate.count("a").remaining for _ in range(2)] == [1, 0]
    with pytest.raises(RateExceeded):
        rate.count("a")


def test_callers_that_list_nothing_any_more_are_forgotten() -> None:
    now = [0.0]
    rate = ListRate(60, lambda: now[0])
    for caller in range(3000):
        now[0] += 1
        rate.count(str(caller))
    assert len(rate._buckets) <= 1000


def test_a_caller_that_lists_in_a_loop_gets_429_and_others_and_polls_do_not(
    api_settings: ApiSettings, queue: JobQueue
) -> None:
    # One call a minute: a slow machine earns no second one meanwhile.
    settings = api_settings.model_copy(update={"lists_per_minute": 1})
    with TestClient(create_app(settings)) as client:
        job = submit(client)
        first, second, other = (client.get(path) for path in ("/v1/models", "/v1/jobs", "/v1/loras"))
        polls = [client.get(f"/v1/jobs/{job['id']}").status_code for _ in range(5)]
        tokens = [ApiKeyStore(queue.connection).create(name, scopes={Scope.ADMIN})[1] for name in ("one", "two")]
        client.app.state.services.authenticator._has_keys_until = (False, 0.0)  # type: ignore[attr-defined]
        lists = [client.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"}) for token in tokens]

    assert (first.status_code, first.headers["X-RateLimit-Limit"]) == (200, "1")
    for limited in (second, other):
        assert (limited.status_code, limited.json()["code"]) == (429, "rate_exceeded")
        assert 0 < int(limited.headers["Retry-After"]) <= 60
    assert polls == [200] * 5
    assert [answer.status_code for answer in lists] == [200, 200]


def test_the_limit_can_be_turned_off(api_settings: ApiSettings) -> None:
    with TestClient(create_app(api_settings.model_copy(update={"lists_per_minute": 0}))) as client:
        answers = [client.get("/v1/schedulers") for _ in range(2)]
    assert {answer.status_code for answer in answers} == {200}
    assert [answer for answer in answers if "X-RateLimit-Limit" in answer.headers] == []
