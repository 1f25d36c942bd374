"""`Prefer: wait`: woken by the event; no thread, polling or connection per client."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from app.events.waiting import read_preference
from cli.supervisor.redis_server import RedisServer
from contracts.jobs.failures import RETRYABLE, FailureCode
from contracts.jobs.records import JobError, Progress
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import open_storage
from tests.support.api_process import api_process, has_logged
from tests.support.claims import reports
from tests.support.requests import BODIES
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until

JOB = {"prompt": "a red circle"}


def waiting(seconds: int | None = None) -> dict[str, str]:
    return {"Prefer": "wait" if seconds is None else f"wait={seconds}"}


@contextmanager
def posted(client: httpx.Client | TestClient, queue: JobQueue, **arguments: Any) -> Iterator[list[Any]]:
    """Post a job in a thread; enters the block once it is queued. The list has the response after the block."""
    answers: list[Any] = []
    before = queue.connection.zcard("darkroom:jobs:local")
    thread = threading.Thread(target=lambda: answers.append(client.post("/v1/txt2img", **arguments)))
    thread.start()
    wait_until(lambda: queue.connection.zcard("darkroom:jobs:local") > before)
    yield answers
    thread.join()


@pytest.mark.parametrize("task", BODIES)
def test_a_call_for_any_task_can_wait_for_its_job(client: TestClient, worker: ScriptedWorker, task: str) -> None:
    thread = threading.Thread(target=lambda: worker.complete(worker.claim_next()))
    thread.start()
    response = client.post(f"/v1/{task}", json=BODIES[task], headers=waiting())
    thread.join()

    job = response.json()
    assert (response.status_code, job["status"], len(job["images"])) == (200, "completed", 1)
    assert response.headers["Preference-Applied"] == "wait=60"
    assert response.headers["Location"].endswith(job["id"])


def test_a_job_goes_on_after_the_wait_times_out(client: TestClient, worker: ScriptedWorker) -> None:
    response = client.post("/v1/txt2img", json=JOB, headers=waiting(1))

    job = response.json()
    assert (response.status_code, job["status"], job["queue"]["ahead"]) == (202, "queued", 0)
    assert response.headers["Preference-Applied"] == "wait=1"
    worker.complete(worker.claim())
    assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "completed"


def test_a_call_that_waits_can_return_the_image_as_base64(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    body = JOB | {"response_format": "b64_json"}
    with posted(client, queue, json=body, headers=waiting()) as answers:
        worker.complete(worker.claim())

    assert "b64_json" in answers[0].json()["images"][0]


def test_failures_and_cancellations_end_the_wait(
    client: TestClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    with posted(client, queue, json=JOB, headers=waiting()) as failed:
        code = FailureCode.OUT_OF_MEMORY
        worker.claims.fail(worker.claim(), JobError(code=code, message="too large", retryable=code in RETRYABLE))
    with posted(client, queue, json=JOB, headers=waiting()) as cancelled:
        (id,) = queue.connection.zrevrange("darkroom:jobs:local", 0, 0)
        queue.cancel(str(id))

    assert [(answer.status_code, answer.json()["status"]) for answer in failed + cancelled] == [
        (200, "failed"),
        (200, "cancelled"),
    ]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("wait=0", 1), ("wait=-1", 1), ("wait=-99999", 1), ("wait=61", 60), (f"wait={10**12}", 60),
        ("wait=" + "9" * 5000, 60), ("wait=00000000160", 60), ('wait="000"', 1), ("wait=07", 7),
        ("wait=x", None), ("wait=1.5", None), ("wait=-", None), ("wait=1 2", None),
    ],
)  # fmt: skip
def test_a_wait_out_of_range_is_moved_to_the_nearest_and_no_number_is_no_preference(
    value: str, seconds: int | None
) -> None:
    headers = [(b"prefer", value.encode())]

    assert read_preference(Request({"type": "http", "headers": headers})) == seconds


def test_the_answer_says_which_wait_was_applied(client: TestClient, worker: ScriptedWorker) -> None:
    thread = threading.Thread(target=lambda: worker.complete(worker.claim_next()))
    thread.start()
    response = client.post("/v1/txt2img", json=JOB, headers=waiting(3600))
    thread.join()

    assert (response.status_code, response.headers["Preference-Applied"]) == (200, "wait=60")


def test_other_preferences_are_ignored(client: TestClient, subtests: pytest.Subtests) -> None:
    for value in ["respond-async", "return=minimal; x=y", "", "waiting=3", "wait=soon"]:
        with subtests.test(value=value):
            response = client.post("/v1/txt2img", json=JOB, headers={"Prefer": value})

            assert response.status_code == 202
            assert "Preference-Applied" not in response.headers


@pytest.mark.parametrize("value", ['respond-async, wait="1"', "Wait=1;x=y", "wait=1, wait=60", f"wait={1:05000}"])
def test_the_preference_is_parsed_as_in_rfc_7240(client: TestClient, value: str) -> None:
    response = client.post("/v1/txt2img", json=JOB, headers={"Prefer": value})

    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "wait=1")


def calls_of(queue: JobQueue, command: str) -> int:
    stats = queue.connection.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_a_hundred_clients_wait_without_threads_polling_or_connections_of_their_own(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker
) -> None:
    count = 100
    with api_process(settings.redis_url, settings.data) as (client, process):
        client.get("/healthz")
        answers = asyncio.run(_wait_all(str(client.base_url), queue, worker, count, psutil.Process(process.pid)))

    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "completed")}
    assert len({answer.json()["id"] for answer in answers}) == count


async def _wait_all(
    url: str, queue: JobQueue, worker: ScriptedWorker, count: int, process: psutil.Process
) -> list[httpx.Response]:
    async with httpx.AsyncClient(
        base_url=url, timeout=90, trust_env=False, limits=httpx.Limits(max_connections=None)
    ) as client:
        posts = [
            asyncio.create_task(client.post("/v1/txt2img", json=JOB, headers=waiting())) for _ in range(count)
        ]

        def work() -> None:
            wait_until(lambda: queue.connection.zcard("darkroom:jobs:local") == count)
            claims = [worker.claim() for _ in range(count)]
            reads_before = calls_of(queue, "hgetall")
            for step in range(1, 6):  # progress wakes nobody
                worker.claims.advance(reports(*claims, progress=Progress(step=step, steps=5)))
            assert process.num_threads() < 60
            clients = queue.connection.client_list(_type="pubsub")
            assert len(clients) == 1
            assert len(queue.connection.client_list()) < 60
            assert calls_of(queue, "hgetall") - reads_before < 50  # the first reads of the last clients
            for claim in claims:
                worker.complete(claim)

        await asyncio.to_thread(work)
        return list(await asyncio.gather(*posts))


def test_a_wait_ends_when_another_process_cancels_the_job(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker
) -> None:
    with (
        api_process(settings.redis_url, settings.data) as (api, _),
        api_process(settings.redis_url, settings.data) as (other_api, _),
        posted(api, queue, json=JOB, headers=waiting()) as answers,
    ):
        (job,) = other_api.get("/v1/jobs").json()["data"]
        assert other_api.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200

    assert answers[0].json()["status"] == "cancelled"


def test_a_job_that_ends_while_the_subscription_is_broken_still_wakes_its_client(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker
) -> None:
    with (
        api_process(settings.redis_url, settings.data) as (client, _),
        posted(client, queue, json=JOB, headers=waiting()) as answers,
    ):
        wait_until(lambda: bool(queue.connection.client_list(_type="pubsub")))
        claim = worker.claim()
        queue.connection.client_kill_filter(_type="pubsub")
        worker.complete(claim)

    assert (answers[0].status_code, answers[0].json()["status"]) == (200, "completed")


def test_a_wait_survives_a_restart_of_redis(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", fsync="always")
    server.start()
    settings = SharedSettings(redis_url=server.url, data=tmp_path)
    queue = JobQueue(settings)
    worker = ScriptedWorker(queue, open_storage(settings))
    try:
        with (
            api_process(server.url, tmp_path, DARKROOM_LOG_LEVEL="info") as (client, process),
            posted(client, queue, json=JOB, headers=waiting()) as answers,
        ):
            # The job is in Redis a little before the process knows that it is: without that answer, it is a 503.
            wait_until(lambda: has_logged(process, b"job accepted"))
            server.kill()
            server.start()
            worker.complete(worker.claim())
    finally:
        queue.close()
        server.stop()

    assert (answers[0].status_code, answers[0].json()["status"]) == (200, "completed")


def test_a_process_that_shuts_down_answers_its_waiting_clients(settings: SharedSettings, queue: JobQueue) -> None:
    with (
        api_process(settings.redis_url, settings.data) as (client, process),
        posted(client, queue, json=JOB, headers=waiting()) as answers,
    ):
        process.send_signal(signal.SIGTERM)
        process.wait(60)  # the clients wait for a minute

    assert (answers[0].status_code, answers[0].json()["status"]) == (202, "queued")
