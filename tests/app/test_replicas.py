"""Two API processes behind one Redis share the rate limits, quotas and revocations of API keys."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from contracts.auth.api_keys import ApiKeyStore
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from tests.support.api_process import api_process
from tests.support.claims import take_all
from tests.support.scripted_worker import ScriptedWorker

JOB = {"prompt": "x"}


@pytest.fixture
def replicas(settings: SharedSettings) -> Iterator[list[httpx.Client]]:
    with (
        api_process(settings.redis_url, settings.data) as (api, _),
        api_process(settings.redis_url, settings.data) as (other_api, _),
    ):
        yield [api, other_api]


@pytest.fixture
def keys(queue: JobQueue) -> ApiKeyStore:
    return ApiKeyStore(queue.connection)


def post_to_all(replicas: list[httpx.Client], token: str, count: int) -> list[httpx.Response]:
    """Post `count` jobs at once, to the processes in turn."""

    async def post() -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(timeout=60, trust_env=False, headers=headers) as client:
            urls = [f"{replicas[number % len(replicas)].base_url}/v1/txt2img" for number in range(count)]
            return list(await asyncio.gather(*(client.post(url, json=JOB) for url in urls)))

    return asyncio.run(post())


def test_limits_hold_exactly_across_two_processes(
    replicas: list[httpx.Client], keys: ApiKeyStore, queue: JobQueue, worker: ScriptedWorker
) -> None:
    rate_token, quota_token = keys.create("a", calls_per_minute=7)[1], keys.create("b", max_jobs=3)[1]

    limited = post_to_all(replicas, rate_token, 24)
    crowded = post_to_all(replicas, quota_token, 24)

    assert Counter(answer.status_code for answer in limited) == {202: 7, 429: 17}
    left = sorted(int(answer.headers["X-RateLimit-Remaining"]) for answer in limited if answer.status_code == 202)
    assert left == list(range(7))
    assert Counter(answer.status_code for answer in crowded) == {202: 3, 429: 21}
    # However a job ends, it no longer counts: completed, cancelled or lost with its worker.
    mine = {"Authorization": f"Bearer {quota_token}"}
    ids = [answer.json()["id"] for answer in crowded if answer.status_code == 202]
    ended = {"cancelled": ids[0]}
    replicas[0].post(f"/v1/jobs/{ids[0]}/cancel", headers=mine)
    claims = {claim.job.id: claim for claim in take_all(worker.claims)}
    worker.complete(claims[ids[1]])
    ended["completed"] = ids[1]
    for _ in range(3):
        queue.connection.zadd("darkroom:leases", {ids[2]: 1})
        worker.claims.reap()
        worker.claims.claim(ClaimCriteria())
    ended["failed"] = ids[2]
    states = {
        state: replicas[1].get(f"/v1/jobs/{id}", headers=mine).json()["status"] for state, id in ended.items()
    }
    assert states == {state: state for state in ended}
    again = post_to_all(replicas, quota_token, 8)
    assert Counter(answer.status_code for answer in again) == {202: 3, 429: 5}


def test_a_revocation_takes_effect_in_every_process(replicas: list[httpx.Client], keys: ApiKeyStore) -> None:
    key, token = keys.create("a")
    mine = {"Authorization": f"Bearer {token}"}
    for client in replicas:
        assert client.get("/v1/jobs", headers=mine).status_code == 200

    keys.revoke(key.id)

    deadline = time.monotonic() + 60
    while any(client.get("/v1/jobs", headers=mine).status_code != 401 for client in replicas):
        assert time.monotonic() < deadline
        time.sleep(0.1)
