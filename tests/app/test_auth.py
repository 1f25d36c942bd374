"""API keys over HTTP: created and revoked while the service runs; scopes, rate limits, quotas, priorities."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.auth import read_token
from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore, Scope
from contracts.jobs.failures import FailureCode
from contracts.jobs.receipt import Energy
from contracts.jobs.records import JobError
from contracts.queue.client import JobQueue
from contracts.requests.schema import Priority
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.api_process import api_process
from tests.support.scripted_worker import ScriptedWorker

JOB = {"prompt": "a red circle"}
EVERY_SCOPE = {Scope.GENERATE, Scope.ADMIN}


@pytest.fixture
def keys(queue: JobQueue) -> ApiKeyStore:
    return ApiKeyStore(queue.connection)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def wait_for_status(call: Callable[[], httpx2.Response], status: int) -> httpx2.Response:
    """Repeat a call until it returns this status; the service caches keys for a second."""
    deadline = time.monotonic() + 60
    while (response := call()).status_code != status:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.05)
    return response


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None),
        ("", None),
        ("Bearer dk_1", "dk_1"),
        ("bearer  dk_1 ", "dk_1"),
        ("Basic ZGtfMQ==", None),
        ("dk_1", None),
    ],
)
def test_a_token_is_read_from_the_header(header: str | None, token: str | None) -> None:
    assert read_token(header) == token


def test_without_keys_every_client_on_loopback_is_the_owner_local(client: TestClient, queue: JobQueue) -> None:
    for headers in ({}, bearer("sk-anything"), {"Authorization": "Basic eDp5"}):
        id = client.post("/v1/txt2img", json=JOB, headers=headers).json()["id"]
        assert queue.fetch(id).owner == "local"
    assert client.get("/v1/workers").status_code == 200


def test_without_keys_nobody_is_served_on_a_public_address(settings: SharedSettings) -> None:
    with TestClient(create_app(ApiSettings(shared=settings, host="0.0.0.0"))) as client:
        refused = client.post("/v1/txt2img", json=JOB)

        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert "darkroom keys create" in refused.json()["detail"]
        assert client.get("/healthz").status_code == 200


def test_the_first_key_takes_effect_while_the_service_runs(client: TestClient, keys: ApiKeyStore) -> None:
    assert client.get("/v1/jobs").status_code == 200

    key, token = keys.create("first")

    refused = wait_for_status(lambda: client.get("/v1/jobs"), 401)
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="darkroom"'
    assert "Authorization: Bearer KEY" in refused.json()["detail"]
    assert client.get("/v1/jobs", headers=bearer(token)).status_code == 200
    assert key.sha256 not in refused.text


def test_a_revoked_key_is_refused_while_the_service_runs(client: TestClient, keys: ApiKeyStore) -> None:
    key, token = keys.create("a")
    assert client.get("/v1/jobs", headers=bearer(token)).status_code == 200

    keys.revoke(key.id)

    refused = wait_for_status(lambda: client.get("/v1/jobs", headers=bearer(token)), 401)
    assert "revoked" in refused.json()["detail"]
    assert wait_for_status(lambda: client.get("/v1/jobs"), 401)


def test_a_wrong_key_is_refused(client: TestClient, keys: ApiKeyStore, subtests: pytest.Subtests) -> None:
    for wrong in ["", "x", "dk_000000000000_" + "x" * 43]:
        with subtests.test(wrong=wrong):
            keys.create("a")

            assert client.get("/v1/models", headers=bearer(wrong)).status_code == 401
            assert client.post("/v1/txt2img", json=JOB, headers=bearer(wrong)).status_code == 401


def test_every_route_except_health_checks_and_what_images_are_checked_with_needs_a_key(
    client: TestClient, keys: ApiKeyStore
) -> None:
    keys.create("a")
    paths = client.get("/openapi.json").json()["paths"]

    is_open = set()
    for path, calls in paths.items():
        for method in calls:
            status = client.request(method, path.replace("{n}", "0")).status_code
            if status != 401:
                is_open.add(path)

    known_signer = {"/.well-known/darkroom/credentials.pem", "/.well-known/darkroom/keys.json"}
    assert is_open == {"/healthz", "/readyz", *known_signer}


def test_the_body_of_an_unauthenticated_request_is_not_read(settings: SharedSettings, keys: ApiKeyStore) -> None:
    keys.create("a")
    with api_process(settings.redis_url, settings.data) as (client, _):
        client.get("/healthz")
        address = (client.base_url.host, client.base_url.port or 0)
        for call in ("/v1/txt2img", "/v1/uploads"):
            with socket.create_connection(address, timeout=60) as connection:
                # The body is never sent; the response does not wait for it.
                connection.sendall(
                    f"POST {call} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n".encode()
                )
                assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")


def test_a_key_without_the_generate_scope_creates_nothing(client: TestClient, keys: ApiKeyStore) -> None:
    _, token = keys.create("ops", scopes={Scope.ADMIN})

    for call in ("/v1/txt2img", "/v1/uploads"):
        refused = client.post(call, json=JOB, headers=bearer(token))
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert refused.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="generate"'
    assert client.get("/v1/workers", headers=bearer(token)).status_code == 200


def test_only_an_admin_sees_the_workers(client: TestClient, keys: ApiKeyStore) -> None:
    _, token = keys.create("user")
    _, both = keys.create("both", scopes=EVERY_SCOPE)

    assert client.get("/v1/workers", headers=bearer(token)).status_code == 403
    assert client.get("/v1/workers", headers=bearer(both)).status_code == 200
    assert client.get("/v1/models", headers=bearer(token)).status_code == 200


def test_only_an_admin_reads_the_metrics_unless_they_are_open(
    client: TestClient, keys: ApiKeyStore, settings: SharedSettings
) -> None:
    assert client.get("/metrics").status_code == 200
    _, user = keys.create("user")
    _, admin = keys.create("ops", scopes={Scope.ADMIN})

    wait_for_status(lambda: client.get("/metrics"), 401)
    assert client.get("/metrics", headers=bearer(user)).status_code == 403
    assert client.get("/metrics", headers=bearer(admin)).status_code == 200
    with TestClient(create_app(ApiSettings(shared=settings, open_metrics=True))) as open_client:
        assert open_client.get("/metrics").status_code == 200


def test_a_rate_limit_is_enforced_and_shown_in_the_headers(client: TestClient, keys: ApiKeyStore) -> None:
    _, token = keys.create("a", calls_per_minute=2)
    _, other = keys.create("b")

    first, second, third = (client.post("/v1/txt2img", json=JOB, headers=bearer(token)) for _ in range(3))

    assert [first.headers["X-RateLimit-Remaining"], second.headers["X-RateLimit-Remaining"]] == ["1", "0"]
    assert first.headers["X-RateLimit-Limit"] == "2"
    assert (third.status_code, third.json()["code"]) == (429, "rate_exceeded")
    assert 50 <= int(third.headers["Retry-After"]) <= 60
    assert third.headers["X-RateLimit-Remaining"] == "0"
    assert third.headers["X-RateLimit-Reset"] == third.headers["Retry-After"]
    for _ in range(5):  # reading does not count
        assert client.get(f"/v1/jobs/{first.json()['id']}", headers=bearer(token)).status_code == 200
    free = client.post("/v1/txt2img", json=JOB, headers=bearer(other))
    assert free.status_code == 202
    assert "X-RateLimit-Limit" not in free.headers


def test_a_quota_counts_jobs_that_have_not_ended(
    client: TestClient, keys: ApiKeyStore, worker: ScriptedWorker
) -> None:
    _, token = keys.create("a", max_jobs=2)
    call = bearer(token)
    jobs = [client.post("/v1/txt2img", json=JOB, headers=call).json()["id"] for _ in range(2)]

    refused = client.post("/v1/txt2img", json=JOB, headers=call)

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
    assert refused.headers["Retry-After"] == "10"  # there is no estimate yet
    claim = worker.claim()
    assert client.post("/v1/txt2img", json=JOB, headers=call).status_code == 429  # a running job counts
    worker.complete(claim)
    assert client.post("/v1/txt2img", json=JOB, headers=call).status_code == 202
    assert client.post("/v1/txt2img", json=JOB, headers=call).status_code == 429
    client.post(f"/v1/jobs/{jobs[1]}/cancel", headers=call)
    assert client.post("/v1/txt2img", json=JOB, headers=call).status_code == 202


def test_daily_limits_count_what_jobs_have_used_and_say_when_the_day_ends(
    client: TestClient, keys: ApiKeyStore, worker: ScriptedWorker
) -> None:
    call = bearer(keys.create("a", per_day={"images": 3})[1])
    free = bearer(keys.create("b")[1])
    two = {**JOB, "num_images": 2}
    assert client.post("/v1/txt2img", json={**JOB, "num_images": 4}, headers=call).status_code == 429
    assert client.post("/v1/txt2img", json=two, headers=call).status_code == 202
    worker.complete(worker.claim())
    refused = client.post("/v1/txt2img", json=two, headers=call)
    assert (refused.status_code, refused.json()["code"]) == (429, "daily_limit_reached")
    assert "may use 3 images a day, and has used 2;" in refused.json()["detail"]
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    assert client.post("/v1/txt2img", json=JOB, headers=call).status_code == 202
    assert client.post("/v1/txt2img", json={**JOB, "num_images": 4}, headers=free).status_code == 202


def test_seconds_that_are_used_up_stop_a_key_for_the_day(
    client: TestClient, keys: ApiKeyStore, worker: ScriptedWorker
) -> None:
    call = bearer(keys.create("a", per_day={"device_seconds": 2})[1])
    client.post("/v1/txt2img", json=JOB, headers=call)
    lost = JobError.of(FailureCode.WORKER_LOST, "lost")
    worker.claims.fail(worker.claim(), lost, used_seconds=2.5)  # a failure costs as well
    refused = client.post("/v1/txt2img", json=JOB, headers=call)
    assert "may use 2 device seconds a day, and has used 2.5;" in refused.json()["detail"]


def test_energy_that_is_used_up_stops_a_key_for_the_day(
    client: TestClient, keys: ApiKeyStore, worker: ScriptedWorker
) -> None:
    call = bearer(keys.create("a", per_day={"joules": 500})[1])
    client.post("/v1/txt2img", json=JOB, headers=call)
    energy = Energy(joules=500, source="measured")
    worker.claims.fail(worker.claim(), JobError.of(FailureCode.WORKER_LOST, "lost"), energy=energy)
    refused = client.post("/v1/txt2img", json=JOB, headers=call)
    assert "may use 500 joules a day, and has used 500;" in refused.json()["detail"]


def test_callers_without_a_key_share_limits(settings: SharedSettings) -> None:
    limits = ApiSettings(shared=settings, anonymous_calls_per_minute=4, anonymous_max_jobs=2)
    with TestClient(create_app(limits)) as client:
        answers = [client.post("/v1/txt2img", json=JOB) for _ in range(5)]

        assert [answer.status_code for answer in answers] == [202, 202, 429, 429, 429]
        assert [answer.json()["code"] for answer in answers[2:]] == ["too_many_jobs"] * 2 + ["rate_exceeded"]
        assert "at most 2 jobs" in answers[2].json()["detail"]
        assert answers[0].headers["X-RateLimit-Limit"] == "4"
        assert int(answers[4].headers["Retry-After"]) > 0
        assert client.get("/v1/jobs").status_code == 200


def test_the_limits_on_callers_without_a_key_can_be_lifted(settings: SharedSettings) -> None:
    limits = ApiSettings(shared=settings, anonymous_calls_per_minute=0, anonymous_max_jobs=0)
    with TestClient(create_app(limits)) as client:
        answer = client.post("/v1/txt2img", json=JOB)

    assert answer.status_code == 202
    assert "X-RateLimit-Limit" not in answer.headers


def test_a_key_caps_the_priority(client: TestClient, keys: ApiKeyStore, queue: JobQueue) -> None:
    _, token = keys.create("a", highest_priority=Priority.LOW)

    default = client.post("/v1/txt2img", json=JOB, headers=bearer(token))
    named = client.post("/v1/txt2img", json=JOB | {"priority": "low"}, headers=bearer(token))
    refused = client.post("/v1/txt2img", json=JOB | {"priority": "normal"}, headers=bearer(token))

    assert [queue.fetch(job.json()["id"]).priority for job in (default, named)] == ["low", "low"]
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {
            "field": "priority",
            "message": "this API key allows priorities up to low, got normal",
            "allowed": ["low"],
        }
    ]


@pytest.mark.parametrize("best", ["high", "normal"])
def test_the_default_priority_is_normal_even_if_the_key_allows_high(
    client: TestClient, keys: ApiKeyStore, queue: JobQueue, best: str
) -> None:
    _, token = keys.create("a", highest_priority=best)

    job = client.post("/v1/txt2img", json=JOB, headers=bearer(token))

    assert queue.fetch(job.json()["id"]).priority == "normal"


def test_cancelling_and_deleting_need_the_scope_and_count_against_the_rate(
    client: TestClient, keys: ApiKeyStore, worker: ScriptedWorker
) -> None:
    _, maker = keys.create("maker", "team", calls_per_minute=3)
    _, admin = keys.create("admin", "team", scopes={Scope.ADMIN})
    jobs = [client.post("/v1/txt2img", json=JOB, headers=bearer(maker)).json()["id"] for _ in range(2)]
    for refused in (
        client.post(f"/v1/jobs/{jobs[0]}/cancel", headers=bearer(admin)),
        client.delete(f"/v1/jobs/{jobs[0]}", headers=bearer(admin)),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    cancelled = client.post(f"/v1/jobs/{jobs[0]}/cancel", headers=bearer(maker))
    assert (cancelled.status_code, cancelled.headers["X-RateLimit-Remaining"]) == (200, "0")
    for limited in (
        client.post(f"/v1/jobs/{jobs[1]}/cancel", headers=bearer(maker)),
        client.delete(f"/v1/jobs/{jobs[0]}", headers=bearer(maker)),
        client.delete("/v1/loras/x", headers=bearer(maker)),
    ):
        assert (limited.status_code, limited.json()["code"]) == (429, "rate_exceeded")
    assert client.get(f"/v1/jobs/{jobs[1]}", headers=bearer(maker)).json()["status"] == "queued"


# -- after a loss of Redis' data -------------------------------------------------------------------------


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_service_that_has_had_keys_stays_closed_when_redis_loses_its_data(
    settings: SharedSettings, keys: ApiKeyStore, queue: JobQueue, is_restarted: bool
) -> None:
    _, token = keys.create("a")
    with TestClient(create_app(ApiSettings(shared=settings))) as client:
        assert client.get("/v1/jobs", headers=bearer(token)).status_code == 200
        queue.connection.flushall()
        if not is_restarted:
            wait_for_status(lambda: client.get("/v1/jobs", headers=bearer(token)), 401)
            assert client.post("/v1/txt2img", json=JOB).status_code == 401
    with TestClient(create_app(ApiSettings(shared=settings))) as client:
        assert client.post("/v1/txt2img", json=JOB).status_code == 401
        assert client.get("/v1/jobs", headers=bearer(token)).status_code == 401
        _, new = keys.create("b")
        assert client.post("/v1/txt2img", json=JOB, headers=bearer(new)).status_code == 202


def test_a_first_key_is_remembered_without_any_call(
    settings: SharedSettings, keys: ApiKeyStore, queue: JobQueue, storage: Storage
) -> None:
    with TestClient(create_app(ApiSettings(shared=settings))) as client:
        assert client.post("/v1/txt2img", json=JOB).status_code == 202
        keys.create("a")
        deadline = time.monotonic() + 60
        while not storage.exists("service/requires-api-keys"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        queue.connection.flushall()
        wait_for_status(lambda: client.post("/v1/txt2img", json=JOB), 401)


def test_a_service_that_requires_keys_refuses_calls_before_it_has_any(settings: SharedSettings) -> None:
    with TestClient(create_app(ApiSettings(shared=settings, require_keys=True))) as client:
        assert client.post("/v1/txt2img", json=JOB).status_code == 401
