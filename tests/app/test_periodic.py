"""Expiry as clients and the disk see it, with two API processes that sweep the same Redis and storage."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from app.periodic import repeating
from contracts.errors import Unavailable
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage
from tests.support.api_process import api_process
from tests.support.images import encode_solid
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until

QUICK = {"DARKROOM_API_SWEEP_SECONDS": "0.05"}


def test_two_processes_remove_expired_jobs_and_inputs_from_redis_and_disk(
    settings: SharedSettings, queue: JobQueue, storage: Storage, worker: ScriptedWorker
) -> None:
    with (
        api_process(settings.redis_url, settings.data, **QUICK) as (api, _),
        api_process(settings.redis_url, settings.data, **QUICK) as (other_api, _),
    ):
        upload = api.post(
            "/v1/uploads", content=encode_solid("RGB", (64, 64), "red"), headers={"Content-Type": "image/png"}
        ).json()["id"]
        body = {"prompt": "x", "image": upload}
        ids = [
            client.post("/v1/img2img", json=body).json()["id"] for client in (api, other_api) for _ in range(10)
        ]
        for _ in ids:
            worker.complete(worker.claim())
        assert len(storage.find("images/")) == len(ids)

        (key,) = storage.find("inputs/")
        queue.connection.zadd("darkroom:inputs", {key: 1})
        wait_until(lambda: queue.connection.zcard("darkroom:inputs") == 0)
        assert storage.exists(key)  # the jobs still read it
        for id in ids:
            queue.connection.hset(f"darkroom:job:{id}", "expires_at", "1")
            queue.connection.zadd("darkroom:expiry", {id: 1})

        wait_until(lambda: not storage.find("images/") and not storage.find("inputs/"))
        wait_until(lambda: queue.connection.zcard("darkroom:jobs:local") == 0)
        for client in (api, other_api):
            calls = (
                client.get(f"/v1/jobs/{ids[0]}"),
                client.get(f"/v1/jobs/{ids[0]}/images/0"),
                client.post(f"/v1/jobs/{ids[0]}/cancel"),
                client.delete(f"/v1/jobs/{ids[0]}"),
            )
            assert [(call.status_code, call.json()["code"]) for call in calls] == [(410, "gone")] * 4
            assert client.get("/v1/jobs").json()["data"] == []

        for id in ids:
            queue.connection.zadd("darkroom:expiry", {id: 1})
        wait_until(lambda: queue.connection.zcard("darkroom:expiry") == 0)
        assert api.get(f"/v1/jobs/{ids[0]}").status_code == 404
        assert not list(queue.connection.scan_iter("darkroom:job:*"))
        assert not list(queue.connection.scan_iter("rq:*:darkroom:*"))


def test_another_owners_expired_job_is_unknown(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker
) -> None:
    with api_process(settings.redis_url, settings.data, **QUICK) as (client, _):
        mine = client.post("/v1/txt2img", json={"prompt": "x"}).json()["id"]
        theirs = queue.submit(queue.fetch(mine).parameters, owner="somebody").id
        for id in (mine, theirs):
            queue.cancel(id)
            queue.connection.hset(f"darkroom:job:{id}", "expires_at", "1")
            queue.connection.zadd("darkroom:expiry", {id: 1})

        assert client.get(f"/v1/jobs/{mine}").status_code == 410
        assert client.get(f"/v1/jobs/{theirs}").status_code == 404


def test_sweeping_continues_after_redis_closes_the_connections(settings: SharedSettings, queue: JobQueue) -> None:
    with api_process(settings.redis_url, settings.data, **QUICK) as (client, _):
        id = client.post("/v1/txt2img", json={"prompt": "x"}).json()["id"]
        queue.cancel(id)
        queue.connection.client_kill_filter(_type="normal", skipme=True)
        queue.connection.hset(f"darkroom:job:{id}", "expires_at", "1")
        queue.connection.zadd("darkroom:expiry", {id: 1})

        wait_until(lambda: queue.connection.hget(f"darkroom:job:{id}", "gone") == "expired")


def test_work_that_fails_is_named_in_the_log_and_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """Bound arguments are part of no name, and they could be keys."""
    rounds: list[str] = []

    def fail(text: str) -> None:
        rounds.append(text)
        if len(rounds) == 3:
            loop.call_soon_threadsafe(enough.set)
        raise Unavailable("the storage does not answer") if len(rounds) == 1 else ValueError("a bug")

    async def run() -> None:
        async with repeating(partial(fail, "secret"), 0.0):
            await enough.wait()

    enough = asyncio.Event()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        runner.run(run())
    assert any(
        "fail failed, and will be tried again: the storage does not answer" in text for text in caplog.messages
    )
    assert "secret" not in caplog.text.partition("Traceback")[0]
