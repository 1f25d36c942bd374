"""Idempotency keys on real API processes: races, a process killed in the middle, misuse."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from contracts.errors import Conflict
from contracts.queue.client import JobQueue
from contracts.queue.idempotency import CallIdentity, Idempotency, IdempotencyHold
from contracts.settings import SharedSettings
from tests.support.api_process import api_process
from tests.support.images import data_url, encode_solid
from tests.support.parameters import parameters
from tests.support.requests import BODIES
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until

JOB = {"prompt": "a red circle"}


def count_jobs(queue: JobQueue) -> int:
    return queue.connection.zcard("darkroom:jobs:local")


@pytest.mark.parametrize("task", BODIES)
def test_a_repeated_call_returns_the_same_job(client: TestClient, queue: JobQueue, task: str) -> None:
    key = {"Idempotency-Key": "k"}
    first, second = (client.post(f"/v1/{task}", json=BODIES[task], headers=key) for _ in range(2))

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert first.headers["Location"] == second.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert count_jobs(queue) == 1


def test_a_replay_returns_the_current_job_and_may_wait_for_it(client: TestClient, worker: ScriptedWorker) -> None:
    headers = {"Idempotency-Key": "k", "Prefer": "wait"}
    id = client.post("/v1/txt2img", json=JOB, headers={"Idempotency-Key": "k"}).json()["id"]
    worker.complete(worker.claim())

    again = client.post("/v1/txt2img", json=JOB, headers=headers)

    assert (again.status_code, again.json()["id"], again.json()["status"]) == (200, id, "completed")


def test_calls_without_a_key_or_with_different_keys_create_different_jobs(
    client: TestClient, queue: JobQueue
) -> None:
    for headers in ({}, {}, {"Idempotency-Key": "a"}, {"Idempotency-Key": "b"}):
        assert client.post("/v1/txt2img", json=JOB, headers=headers).status_code == 202

    assert count_jobs(queue) == 4


@pytest.mark.parametrize(("path", "body"), [("txt2img", JOB | {"seed": 1}), ("img2img", BODIES["img2img"])])
def test_a_key_that_is_reused_for_another_call_is_refused(
    client: TestClient, queue: JobQueue, path: str, body: dict[str, Any]
) -> None:
    headers = {"Idempotency-Key": "k"}
    client.post("/v1/txt2img", json=JOB, headers=headers)

    response = client.post(f"/v1/{path}", json=body, headers=headers)

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    assert count_jobs(queue) == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_too_short_or_too_long_is_refused(client: TestClient, queue: JobQueue, key: str) -> None:
    response = client.post("/v1/txt2img", json=JOB, headers={"Idempotency-Key": key})

    assert response.status_code == 422
    assert queue.connection.keys("*") == []
    assert client.post("/v1/txt2img", json=JOB, headers={"Idempotency-Key": "x" * 255}).status_code == 202


def test_two_keys_for_one_call_are_refused(client: TestClient, queue: JobQueue) -> None:
    response = client.post("/v1/txt2img", json=JOB, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    assert count_jobs(queue) == 0


def test_a_refused_call_does_not_use_up_its_key(client: TestClient, queue: JobQueue) -> None:
    headers = {"Idempotency-Key": "k"}
    assert client.post("/v1/txt2img", json={"prompt": "x", "width": 65}, headers=headers).status_code == 422
    assert queue.connection.keys("*") == []

    assert client.post("/v1/txt2img", json={"prompt": "x", "width": 64}, headers=headers).status_code == 202


def test_a_replay_of_a_deleted_job_creates_no_new_one(client: TestClient, queue: JobQueue) -> None:
    headers = {"Idempotency-Key": "k"}
    id = client.post("/v1/txt2img", json=JOB, headers=headers).json()["id"]
    client.post(f"/v1/jobs/{id}/cancel")
    client.delete(f"/v1/jobs/{id}")

    response = client.post("/v1/txt2img", json=JOB, headers=headers)

    assert (response.status_code, response.json()["code"]) == (410, "gone")
    assert count_jobs(queue) == 0


def test_a_key_can_be_given_to_a_cancellation(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first_id, other_id = (client.post("/v1/txt2img", json=JOB).json()["id"] for _ in range(2))

    first, again, misused = (
        client.post(f"/v1/jobs/{id}/cancel", headers=headers) for id in (first_id, first_id, other_id)
    )

    assert [answer.status_code for answer in (first, again, misused)] == [200, 200, 422]
    assert first.json() == again.json()
    replayed = [answer.headers.get("Idempotency-Replayed") for answer in (first, again)]
    assert replayed == [None, "true"]
    assert client.get(f"/v1/jobs/{other_id}").json()["status"] == "queued"


def test_an_owner_s_oldest_keys_are_forgotten_and_the_newest_work(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.queue.idempotency.MAX_KEYS", 3)
    keys = Idempotency(queue.connection, lease_seconds=60)

    def call(owner: str, number: int) -> bool:
        identity = CallIdentity(owner, f"key {number}", "POST /v1/uploads", b"")
        _, is_replay = keys.run(identity, lambda _: "made", lambda id: id, lambda id: id)
        return is_replay

    assert not call("other", 0)
    assert [call("local", number) for number in range(5)] == [False] * 5
    assert [call("local", number) for number in (4, 3, 2)] == [True] * 3
    assert call("other", 0)
    assert len(list(queue.connection.scan_iter("darkroom:once:local:*"))) == 3
    assert not call("local", 0)


def test_cancelling_again_with_other_keys_stores_nothing(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    running, waiting = (client.post("/v1/txt2img", json=JOB).json()["id"] for _ in range(2))
    assert worker.claim().job.id == running
    for id in (running, waiting):
        assert client.post(f"/v1/jobs/{id}/cancel", headers={"Idempotency-Key": f"first {id}"}).status_code == 200
    stored = set(queue.connection.keys("*"))
    for number in range(5):
        for id in (running, waiting):
            answer = client.post(f"/v1/jobs/{id}/cancel", headers={"Idempotency-Key": f"{number} {id}"})
            assert answer.status_code == 200
    assert set(queue.connection.keys("*")) == stored


def test_a_key_belongs_to_its_owner(queue: JobQueue) -> None:
    keys = Idempotency(queue.connection, lease_seconds=60)
    mine, theirs = (keys.begin(CallIdentity(owner, "k", "POST /", b"")) for owner in ("me", "them"))

    assert isinstance(mine, IdempotencyHold)
    assert isinstance(theirs, IdempotencyHold)


def test_a_bound_key_is_kept_for_a_day_and_a_held_one_for_its_lease(queue: JobQueue) -> None:
    hold = Idempotency(queue.connection, lease_seconds=5).begin(CallIdentity("local", "k", "POST /", b""))
    assert isinstance(hold, IdempotencyHold)
    assert 0 < queue.connection.ttl(hold.key) <= 5

    queue.submit(parameters(), idempotency=hold)

    assert 86_300 < queue.connection.ttl(hold.key) <= 86_400


def test_a_slow_call_that_lost_its_key_creates_nothing(queue: JobQueue) -> None:
    keys, call = Idempotency(queue.connection, lease_seconds=60), CallIdentity("local", "k", "POST /", b"")
    slow = keys.begin(call)
    assert isinstance(slow, IdempotencyHold)
    with pytest.raises(Conflict):
        keys.begin(call)
    queue.connection.delete(slow.key)  # its lease has run out
    quick = keys.begin(call)
    assert isinstance(quick, IdempotencyHold)

    for _ in range(2):  # while the other call is being accepted, and afterwards
        with pytest.raises(Conflict):
            queue.submit(parameters(), idempotency=slow)
        keys.release(slow)
        with suppress(Conflict):
            queue.submit(parameters(), idempotency=quick)

    assert count_jobs(queue) == 1


def test_a_call_whose_lease_ran_out_unnoticed_is_accepted_and_bound(queue: JobQueue) -> None:
    keys, call = Idempotency(queue.connection, lease_seconds=60), CallIdentity("local", "k", "POST /", b"")
    hold = keys.begin(call)
    assert isinstance(hold, IdempotencyHold)
    queue.connection.delete(hold.key)

    id = queue.submit(parameters(), idempotency=hold).id

    assert keys.begin(call) == id


def test_fifty_posts_with_one_key_to_two_processes_create_one_job(
    settings: SharedSettings, queue: JobQueue
) -> None:
    with (
        api_process(settings.redis_url, settings.data) as (api, _),
        api_process(settings.redis_url, settings.data) as (other_api, _),
    ):
        for client in (api, other_api):
            client.get("/healthz")
        answers = asyncio.run(_post_all([str(api.base_url), str(other_api.base_url)] * 25, "k"))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    replayed = Counter(answer.headers.get("Idempotency-Replayed") for answer in answers)
    assert replayed == {None: 1, "true": 49}
    assert count_jobs(queue) == 1


async def _post_all(urls: list[str], key: str) -> list[httpx.Response]:
    """Post to all at once; a client that gets a conflict retries."""
    body = BODIES["inpaint"] | {"prompt": key}

    async def post(client: httpx.AsyncClient, url: str) -> httpx.Response:
        while True:
            answer = await client.post(f"{url}/v1/inpaint", json=body, headers={"Idempotency-Key": key})
            if answer.status_code != 409:
                return answer
            assert answer.json()["code"] == "conflict"
            await asyncio.sleep(0.05)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, trust_env=False, limits=limits) as client:
        return list(await asyncio.gather(*(post(client, url) for url in urls)))


def test_a_key_is_released_after_the_process_that_held_it_is_killed(
    settings: SharedSettings, queue: JobQueue
) -> None:
    """The process is killed while it decodes large images: it holds the key and has queued nothing."""
    large = data_url(encode_solid("RGB", (5000, 5000), "red"))
    control = {"controlnet": "shapes-sdxl-silhouette", "image": large}
    body = {"prompt": "x", "width": 64, "height": 64, "controls": [control] * 4}
    lease = {"DARKROOM_API_IDEMPOTENCY_LEASE_SECONDS": "3"}
    with (
        api_process(settings.redis_url, settings.data, **lease) as (api, doomed),
        api_process(settings.redis_url, settings.data, **lease) as (other_api, _),
    ):
        other_api.get("/healthz")

        async def post_and_die() -> None:
            async with httpx.AsyncClient(base_url=api.base_url, timeout=60, trust_env=False) as client:
                call = asyncio.create_task(
                    client.post("/v1/controlnet", json=body, headers={"Idempotency-Key": "k"})
                )
                await asyncio.to_thread(wait_until, lambda: bool(queue.connection.keys("darkroom:once:*")))
                doomed.kill()
                with suppress(httpx.TransportError):
                    await call

        asyncio.run(post_and_die())
        assert count_jobs(queue) == 0

        def post() -> httpx.Response:
            return other_api.post("/v1/controlnet", json=body, headers={"Idempotency-Key": "k"})

        assert post().status_code == 409
        wait_until(lambda: post().status_code == 202)
        assert post().headers["Idempotency-Replayed"] == "true"
    assert count_jobs(queue) == 1
