"""Jobs whose clients lose their connections: cancelled when nobody comes back, and found again by retries."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from redis.client import Monitor

from cli.supervisor.redis_server import RedisServer
from contracts.jobs.records import JobRecord, JobState
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.settings import SharedSettings
from contracts.storage import open_storage
from tests.support.api_process import api_process
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until

GENERATE, TXT2IMG = "/v1/images/generations", "/v1/txt2img"
PROMPT = {"prompt": "a red circle"}
FIRST, RETRY = {"x-stainless-retry-count": "0"}, {"x-stainless-retry-count": "1"}
WAIT = {"Prefer": "wait"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def api(redis_server: RedisServer, folder: Path) -> Iterator[httpx.Client]:
    """One API process for all tests here, which waits for clients to come back for a second."""
    with Redis.from_url(redis_server.url) as connection:
        connection.flushall()  # or keys that another test has made would be asked for from now on
    with api_process(redis_server.url, folder, DARKROOM_API_DISCONNECT_GRACE_SECONDS="1") as (client, _):
        wait_until(lambda: client.get("/healthz").is_success)
        yield client


@pytest.fixture
def worker(queue: JobQueue, folder: Path) -> ScriptedWorker:
    return ScriptedWorker(queue, open_storage(SharedSettings(data=folder)))


@contextmanager
def calling(api: httpx.Client, path: str, body: dict[str, Any], **headers: str) -> Iterator[Callable[[], bytes]]:
    """Send a call, and stay connected while the block runs; returns a function that reads the answer."""
    content = json.dumps(body, separators=(",", ":")).encode()  # as httpx writes it
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()] + [f"Content-Length: {len(content)}", "", ""]
    with socket.create_connection((api.base_url.host, api.base_url.port or 0), timeout=60) as connection:
        connection.sendall("\r\n".join(lines).encode() + content)
        yield lambda: b"".join(iter(lambda: connection.recv(65_536), b""))


def jobs_of(queue: JobQueue) -> list[JobRecord]:
    return queue.fetch_all([str(id) for id in queue.connection.zrange(keys.OWNER_JOBS + "local", 0, -1)])


def the_job(queue: JobQueue, count: int = 1) -> JobRecord:
    """The latest job, once there are so many."""
    wait_until(lambda: len(jobs_of(queue)) >= count)
    *_, job = jobs_of(queue)
    return job


def is_attended(queue: JobQueue, job: JobRecord) -> bool:
    return queue.connection.zscore(keys.ATTENDED, job.id) is not None


def wait_for_sweeps(queue: JobQueue) -> None:
    """Wait until a job that was left just now, as a witness, is cancelled because nobody has come back for it."""
    witness = queue.submit(jobs_of(queue)[0].parameters, owner="witness", cancel_on_disconnect=True)
    seconds, micros = queue.connection.time()
    queue.connection.zadd(keys.ATTENDED, {witness.id: seconds + micros / 1e6 + 2.0})
    wait_until(lambda: queue.fetch(witness.id).state is JobState.CANCELLED)


def is_known_to_retries(queue: JobQueue, job: JobRecord) -> bool:
    """Whether a retry of the call would find the job."""
    calls = queue.connection.scan_iter("darkroom:retries:*")
    return any(queue.connection.zscore(call, job.id) is not None for call in calls)


def wait_for_command(monitor: Monitor, beginning: str) -> None:
    """Wait until somebody has sent Redis a command that begins so; every second there is some command."""
    deadline = time.monotonic() + 60
    for command in monitor.listen():  # type: ignore[no-untyped-call]
        if str(command["command"]).startswith(beginning):
            return
        assert time.monotonic() < deadline, f"nobody sent {beginning}"


ENDING: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    (GENERATE, {}, {}),
    (GENERATE, {"stream": True}, {}),
    (GENERATE, {"cancel_on_disconnect": True}, {"Idempotency-Key": "one"}),
    (TXT2IMG, {"cancel_on_disconnect": True}, WAIT),
]
STAYING: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    (GENERATE, {}, {"Idempotency-Key": "one"}),
    (GENERATE, {"cancel_on_disconnect": False}, {}),
    (GENERATE, {"stream": True, "cancel_on_disconnect": False}, {}),
    (TXT2IMG, {}, WAIT),
]


def call_each(
    calls: ExitStack, api: httpx.Client, queue: JobQueue, bodies: list[tuple[str, dict[str, Any], dict[str, str]]]
) -> list[JobRecord]:
    """Send calls whose connections end with the stack; returns their jobs."""
    jobs: list[JobRecord] = []
    for path, body, headers in bodies:
        calls.enter_context(calling(api, path, PROMPT | body, **headers))
        jobs.append(the_job(queue, len(jobs) + 1))
    return jobs


def test_a_job_is_cancelled_when_its_client_has_gone_and_nobody_comes_back(
    api: httpx.Client, queue: JobQueue
) -> None:
    with ExitStack() as calls:
        jobs = call_each(calls, api, queue, ENDING)
        wait_until(lambda: all(is_attended(queue, job) for job in jobs))
        assert {queue.fetch(job.id).state for job in jobs} == {JobState.QUEUED}

    wait_until(lambda: all(queue.fetch(job.id).state is JobState.CANCELLED for job in jobs))
    assert not any(is_attended(queue, job) for job in jobs)


def test_a_job_that_need_not_end_with_its_client_goes_on(api: httpx.Client, queue: JobQueue) -> None:
    with ExitStack() as calls:
        jobs = call_each(calls, api, queue, STAYING)
    wait_for_sweeps(queue)

    assert [queue.fetch(job.id).state for job in jobs] == [JobState.QUEUED] * len(STAYING)


def test_a_running_job_is_told_to_stop(api: httpx.Client, queue: JobQueue, worker: ScriptedWorker) -> None:
    with calling(api, GENERATE, PROMPT):
        job = the_job(queue)
        worker.claim()

    wait_until(lambda: queue.fetch(job.id).cancel_requested)


def test_a_client_that_stays_keeps_its_job(api: httpx.Client, queue: JobQueue, worker: ScriptedWorker) -> None:
    with calling(api, GENERATE, PROMPT) as answer:
        job = the_job(queue)
        wait_until(lambda: is_attended(queue, job))
        wait_for_sweeps(queue)
        assert queue.fetch(job.id).state is JobState.QUEUED
        worker.complete(worker.claim())
        assert b"200 OK" in answer()


def test_a_client_that_reads_the_job_has_come_back_for_it(api: httpx.Client, queue: JobQueue) -> None:
    with calling(api, GENERATE, PROMPT):
        job = the_job(queue)
        wait_until(lambda: is_attended(queue, job))
    # As long as the process counts the client as there, reading does not end its attendance.
    wait_until(lambda: api.get(f"/v1/jobs/{job.id}").is_success and not is_attended(queue, job))
    wait_for_sweeps(queue)
    wait_for_sweeps(queue)

    assert queue.fetch(job.id).state is JobState.QUEUED


def test_a_job_goes_on_while_its_events_are_read_and_ends_with_their_reader(
    api: httpx.Client, queue: JobQueue
) -> None:
    body = PROMPT | {"cancel_on_disconnect": True}
    id = api.post(TXT2IMG, json=body).json()["id"]
    job = queue.fetch(id)
    wait_for_sweeps(queue)
    assert queue.fetch(id).state is JobState.QUEUED  # nobody has waited for it yet
    with api.stream("GET", f"/v1/jobs/{id}/events") as events:
        assert events.status_code == 200
        wait_until(lambda: is_attended(queue, job))
        wait_for_sweeps(queue)
        assert queue.fetch(id).state is JobState.QUEUED

    wait_until(lambda: queue.fetch(id).state is JobState.CANCELLED)


def test_a_client_that_was_told_to_come_later_leaves_a_job_that_goes_on(
    api: httpx.Client, queue: JobQueue
) -> None:
    headers = {"Prefer": "wait=1"}
    answer = api.post(TXT2IMG, json=PROMPT | {"cancel_on_disconnect": True}, headers=headers)

    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert not is_attended(queue, queue.fetch(answer.json()["id"]))


def test_when_a_process_dies_its_clients_have_the_grace_at_another_one(
    api: httpx.Client, queue: JobQueue, redis_server: RedisServer, folder: Path
) -> None:
    grace = {"DARKROOM_API_DISCONNECT_GRACE_SECONDS": "1"}
    with api_process(redis_server.url, folder, **grace) as (other, process), calling(other, GENERATE, PROMPT):
        job = the_job(queue)
        wait_until(lambda: is_attended(queue, job))
        process.kill()
        wait_until(lambda: queue.fetch(job.id).state is JobState.CANCELLED)


@pytest.mark.parametrize("path", [GENERATE, TXT2IMG])
def test_a_librarys_own_retry_attaches_to_the_job_that_its_call_made(
    api: httpx.Client, queue: JobQueue, worker: ScriptedWorker, path: str
) -> None:
    commands = queue.connection.monitor()  # type: ignore[no-untyped-call]
    with calling(api, path, PROMPT, **FIRST, **WAIT), commands as monitor:
        job = the_job(queue)
        wait_until(lambda: is_known_to_retries(queue, job))
        with calling(api, path, PROMPT, **RETRY, **WAIT) as answer:
            # Before the first call is answered: afterwards the same call would make another job.
            wait_for_command(monitor, "ZREVRANGE darkroom:retries:")
            worker.complete(worker.claim_next())
            text = answer()

    assert b"200 OK" in text
    assert job.id.encode() in text
    assert b"idempotency-replayed: true" in text
    assert [found.id for found in jobs_of(queue)] == [job.id]


def test_a_retry_gets_a_job_that_ended_meanwhile_and_a_later_one_another(
    api: httpx.Client, queue: JobQueue, worker: ScriptedWorker
) -> None:
    with calling(api, GENERATE, PROMPT | {"cancel_on_disconnect": False}, **FIRST):
        job = the_job(queue)
        claim = worker.claim()
    worker.complete(claim)  # nobody is connected
    body = PROMPT | {"cancel_on_disconnect": False}
    first = api.post(GENERATE, json=body, headers=RETRY)
    with calling(api, GENERATE, body, **RETRY):
        other = the_job(queue, count=2)

    assert first.json()["job"] == job.id
    assert other.id != job.id


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (PROMPT, FIRST),
        (PROMPT, {}),
        (PROMPT, {"x-stainless-retry-count": "many"}),
        (PROMPT | {"num_images": 2}, RETRY),
    ],
)
def test_a_call_that_is_no_retry_of_the_same_body_makes_a_job_of_its_own(
    api: httpx.Client, queue: JobQueue, body: dict[str, Any], headers: dict[str, str]
) -> None:
    with calling(api, GENERATE, PROMPT, **FIRST):
        job = the_job(queue)
        with calling(api, GENERATE, body, **headers):
            assert the_job(queue, count=2).id != job.id


def test_a_retry_does_not_attach_to_a_job_that_is_cancelled(api: httpx.Client, queue: JobQueue) -> None:
    with calling(api, GENERATE, PROMPT, **FIRST) as answer:
        job = the_job(queue)
        queue.cancel(job.id)
        assert b"502" in answer().partition(b"\r\n")[0]
    with calling(api, GENERATE, PROMPT, **RETRY):
        assert the_job(queue, count=2).id != job.id


@pytest.fixture(autouse=True)
def _empty(redis_url: str) -> Iterator[None]:
    """Leave no job for the process to look after when the test is over."""
    yield
    with Redis.from_url(redis_url) as connection:
        connection.flushall()
