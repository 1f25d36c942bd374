"""A Redis that has reached `maxmemory`, and records that cannot be read, as clients see them."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from cli.supervisor.redis_server import RedisServer
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.redis.connection import connect
from contracts.settings import QueueSettings, SharedSettings
from tests.support.parameters import parameters
from tests.support.waiting import wait_until

JOB = {"prompt": "a red circle"}


def test_a_full_redis_refuses_new_jobs_with_retry_after_and_serves_every_other_call(
    small_redis: RedisServer, tmp_path: Path
) -> None:
    settings = ApiSettings(shared=SharedSettings(redis_url=small_redis.url, data=tmp_path))
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        ids = [client.post("/v1/txt2img", json=JOB).json()["id"] for _ in range(2)]
        with connect(small_redis.url, timeout_seconds=5, retries=0) as connection:
            connection.config_set("maxmemory", connection.info("memory")["used_memory"])
        accepted = 202
        for _ in range(1000):  # what has just been freed may hold some
            response = client.post("/v1/txt2img", json={**JOB, "prompt": "ß" * 10_000, "long_prompt": "truncate"})
            if response.status_code != accepted:
                break

        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert response.json()["code"] == "unavailable"
        assert "memory (Redis) is full" in response.json()["detail"]
        assert "OOM" not in response.text
        assert client.get(f"/v1/jobs/{ids[0]}").json()["status"] == "queued"
        assert client.get("/v1/jobs", params={"limit": 1}).status_code == 200
        assert client.post(f"/v1/jobs/{ids[0]}/cancel").json()["status"] == "cancelled"
        key = {"Idempotency-Key": "k"}
        assert client.post(f"/v1/jobs/{ids[1]}/cancel", headers=key).json()["status"] == "cancelled"
        assert client.delete(f"/v1/jobs/{ids[0]}").status_code == 204


def test_what_redis_says_of_a_refused_call_is_not_shown_to_clients(client: TestClient, queue: JobQueue) -> None:
    queue.connection.set("darkroom:jobs:local", "not a list of jobs")

    answers = [client.get("/v1/jobs"), client.post("/v1/txt2img", json=JOB)]

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "the service's log has the details" in answer.json()["detail"]
        assert "WRONGTYPE" not in answer.text


def test_a_job_that_cannot_be_read_is_one_failed_job_and_no_error_of_the_list(
    client: TestClient, queue: JobQueue
) -> None:
    ids = [client.post("/v1/txt2img", json=JOB).json()["id"] for _ in range(3)]
    queue.connection.hset(f"darkroom:job:{ids[1]}", "parameters", '{"prompt": "x", "invented_later": 1}')

    listed = client.get("/v1/jobs").json()["data"]

    assert [(job["id"], job["status"]) for job in listed] == [
        (ids[2], "queued"), (ids[1], "failed"), (ids[0], "queued"),
    ]  # fmt: skip
    shown = client.get(f"/v1/jobs/{ids[1]}").json()
    assert shown["error"]["code"] == "unreadable"
    assert shown["model"] == "shapes-sdxl"
    assert client.post(f"/v1/jobs/{ids[1]}/cancel").status_code == 409
    assert client.post(f"/v1/jobs/{ids[1]}/rerun").status_code == 409
    assert client.delete(f"/v1/jobs/{ids[1]}").status_code == 204


def test_deadlines_act_without_a_worker(settings: SharedSettings, queue: JobQueue) -> None:
    late = queue.submit(parameters(), deadline_seconds=1)
    quick = ApiSettings(shared=settings, queue=QueueSettings(lease_seconds=1))

    with TestClient(create_app(quick)):
        wait_until(lambda: queue.fetch(late.id).state.is_final)

    error = queue.fetch(late.id).error
    assert error is not None
    assert error.code == "deadline_exceeded"


def test_a_cancelled_job_of_a_dead_worker_ends_without_another_worker(
    settings: SharedSettings, queue: JobQueue
) -> None:
    job = queue.submit(parameters())
    connection = connect(settings.redis_url, timeout_seconds=5, retries=0)
    dead = Claims(connection, QueueSettings(lease_seconds=0.1), "dead", ttl_seconds=60)
    dead.claim(ClaimCriteria())
    queue.cancel(job.id)
    quick = ApiSettings(shared=settings, queue=QueueSettings(lease_seconds=1))

    with TestClient(create_app(quick)):
        wait_until(lambda: queue.fetch(job.id).state.is_final)

    assert queue.fetch(job.id).state == "cancelled"
    connection.close()


def test_prompts_have_a_limit_in_bytes_together(client: TestClient) -> None:
    long = "雪" * 10_000
    body = {"prompt": long, "negative_prompt": long, "long_prompt": "truncate"}
    accepted = client.post("/v1/txt2img", json=body)
    refused = client.post("/v1/txt2img", json={**body, "prompt_2": long, "negative_prompt": "a" * 9_000})

    assert accepted.status_code == 202
    assert refused.status_code == 422
    (problem,) = refused.json()["errors"]
    assert problem["field"] == "prompt"
    assert "65536 bytes" in problem["message"]


def test_a_prompt_that_is_not_text_is_refused(client: TestClient) -> None:
    response = client.post(
        "/v1/txt2img", content=b'{"prompt": "\\ud800"}', headers={"Content-Type": "application/json"}
    )

    assert response.status_code in (400, 422)
