"""A full queue refuses jobs and says when to retry; the limit holds exactly across processes."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.requests.schema import Priority
from contracts.settings import SharedSettings
from tests.support.api_process import api_process
from tests.support.parameters import parameters
from tests.support.scripted_worker import ScriptedWorker

JOB = {"prompt": "x", "num_inference_steps": 20}


def test_a_full_queue_refuses_until_a_worker_takes_a_job(settings: SharedSettings, worker: ScriptedWorker) -> None:
    with TestClient(create_app(ApiSettings(shared=settings, max_waiting=2))) as client:
        headers = {"Idempotency-Key": "k"}
        for _ in range(2):
            assert client.post("/v1/txt2img", json=JOB).status_code == 202

        refused = client.post("/v1/txt2img", json=JOB, headers=headers)

        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert refused.headers["Retry-After"] == "10"  # there is no estimate yet
        assert len(client.get("/v1/jobs").json()["data"]) == 2
        worker.claim()
        assert client.post("/v1/txt2img", json=JOB, headers=headers).status_code == 202
        assert (
            client.post("/v1/txt2img", json=JOB, headers=headers).status_code == 202
        )  # the same job, not a third
        assert client.post("/v1/txt2img", json=JOB).status_code == 429


def test_an_owner_who_fills_the_share_of_one_leaves_the_queue_open_to_others(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker
) -> None:
    keys = ApiKeyStore(queue.connection)
    greedy, modest = (
        {"Authorization": f"Bearer {keys.create(name, highest_priority=Priority.HIGH)[1]}"} for name in "ab"
    )
    with TestClient(create_app(ApiSettings(shared=settings, max_waiting_per_owner=2, max_waiting=3))) as client:
        first = client.post("/v1/txt2img", json=JOB | {"priority": "high"}, headers=greedy)
        assert client.post("/v1/txt2img", json=JOB | {"priority": "low"}, headers=greedy).status_code == 202

        refused = client.post("/v1/txt2img", json=JOB, headers=greedy)

        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert "2 of your jobs are waiting, the maximum for one owner" in refused.json()["detail"]
        assert int(refused.headers["Retry-After"]) > 0
        assert client.post("/v1/txt2img", json=JOB, headers=modest).status_code == 202
        refused = client.post("/v1/txt2img", json=JOB, headers=modest)
        assert "3 jobs are waiting, the maximum" in refused.json()["detail"]
        client.post(f"/v1/jobs/{first.json()['id']}/cancel", headers=greedy)
        assert client.post("/v1/txt2img", json=JOB, headers=greedy).status_code == 202


@pytest.mark.parametrize(("max_jobs", "seconds"), [(1, "40"), (2, "1")])
def test_retry_after_is_the_time_until_a_worker_takes_its_next_job(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker, max_jobs: int, seconds: str
) -> None:
    report = WorkerReport(id="scripted-worker", state="busy", max_jobs=max_jobs, warm=["shapes-sdxl"])
    publish(queue.connection, report, 60)
    with TestClient(create_app(ApiSettings(shared=settings, max_waiting=1))) as client:
        client.post("/v1/txt2img", json=JOB)
        worker.complete(worker.claim(), denoise_seconds=40.0)
        client.post("/v1/txt2img", json=JOB)
        worker.claim()
        client.post("/v1/txt2img", json=JOB)

        assert client.post("/v1/txt2img", json=JOB).headers["Retry-After"] == seconds


def test_the_limit_holds_exactly_across_two_processes(settings: SharedSettings, queue: JobQueue) -> None:
    limit = {"DARKROOM_API_MAX_WAITING": "5"}

    async def post_all(urls: list[str]) -> Counter[int]:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            answers = await asyncio.gather(*(client.post(f"{url}/v1/txt2img", json=JOB) for url in urls))
        return Counter(answer.status_code for answer in answers)

    with (
        api_process(settings.redis_url, settings.data, **limit) as (api, _),
        api_process(settings.redis_url, settings.data, **limit) as (other_api, _),
    ):
        found = asyncio.run(post_all([str(api.base_url), str(other_api.base_url)] * 20))

    assert found == {202: 5, 429: 35}
    assert queue.connection.zcard("darkroom:jobs:local") == 5


def test_ended_jobs_of_one_owner_take_no_more_than_their_share_of_redis_memory(
    settings: SharedSettings, worker: ScriptedWorker
) -> None:
    limits = ApiSettings(shared=settings, max_owner_record_bytes=200_000)
    large = {"prompt": "x" * 10_000, "negative_prompt": "x" * 10_000, "long_prompt": "truncate"}
    with TestClient(create_app(limits)) as client:
        ids = []
        while (response := client.post("/v1/txt2img", json=large)).status_code == 202:
            ids.append(response.json()["id"])
            assert len(ids) < 20
            if len(ids) % 2:
                client.post(f"/v1/jobs/{ids[-1]}/cancel")
            else:
                worker.complete(worker.claim())

        assert (response.status_code, response.json()["code"]) == (507, "quota_exceeded")
        assert "at most 200000 bytes of the queue's memory" in response.json()["detail"]
        assert len(ids) > 2
        for id in ids:
            assert client.delete(f"/v1/jobs/{id}").status_code == 204
        assert client.post("/v1/txt2img", json=large).status_code == 202


def test_what_the_records_of_removed_jobs_took_is_given_back(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker
) -> None:
    ids = [queue.submit(parameters(), owner="me").id for _ in range(3)]
    waiting = int(queue.connection.hget("darkroom:record_bytes", "me") or 0)
    worker.complete(worker.claim())
    queue.cancel(ids[1])
    queue.cancel(ids[2])
    ended = int(queue.connection.hget("darkroom:record_bytes", "me") or 0)

    for id in ids:
        queue.delete(id)

    assert 3_000 < waiting < ended
    assert not queue.connection.exists("darkroom:record_bytes")
