"""Jobs that are accepted once a replica has them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.redis import keys
from contracts.settings import SharedSettings
from tests.support.redis_group import RedisGroup, wait_until

BODY = {"prompt": "a red circle"}
KEY = {"idempotency-key": "once"}


@pytest.fixture
def group(tmp_path: Path) -> Iterator[RedisGroup]:
    """A primary with one replica."""
    group = RedisGroup(tmp_path / "redis")
    try:
        group.start()
        yield group
    finally:
        group.close()


@pytest.fixture
def api(group: RedisGroup, tmp_path: Path) -> Iterator[TestClient]:
    shared = SharedSettings(redis_url=group.url, data=tmp_path, redis_wait_replicas=1, redis_wait_seconds=2)
    with TestClient(create_app(ApiSettings(shared=shared, allow_anonymous=True))) as client:
        yield client


def test_an_accepted_job_is_on_the_replica(api: TestClient, group: RedisGroup) -> None:
    job = api.post("/v1/txt2img", json=BODY)
    assert job.status_code == 202
    with group.connect_to(group.servers[1]) as replica:
        assert replica.hget(keys.JOB + job.json()["id"], "state") == "queued"


def test_a_job_without_a_replica_is_503_and_a_repetition_makes_no_second_one(
    api: TestClient, group: RedisGroup
) -> None:
    replica = group.servers[1]
    replica.signal(signal.SIGSTOP)
    refused = api.post("/v1/txt2img", json=BODY, headers=KEY)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert refused.headers["retry-after"]
    assert "Idempotency-Key" in refused.json()["detail"]
    assert api.post("/v1/txt2img", json=BODY, headers=KEY).status_code == 503, "the repetition is not confirmed"
    replica.signal(signal.SIGCONT)
    accepted = api.post("/v1/txt2img", json=BODY, headers=KEY)
    while accepted.status_code == 503:
        accepted = api.post("/v1/txt2img", json=BODY, headers=KEY)
    assert (accepted.status_code, accepted.headers["idempotency-replayed"]) == (202, "true")
    assert [job["id"] for job in api.get("/v1/jobs").json()["data"]] == [accepted.json()["id"]]


def test_while_replicas_are_missing_further_jobs_are_refused_before_they_are_queued(
    api: TestClient, group: RedisGroup
) -> None:
    group.servers[1].signal(signal.SIGKILL)
    answers = [api.post("/v1/txt2img", json=BODY) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert "no job is accepted" in answers[2].json()["detail"]
    assert ("redis", "fewer than 1 replicas") in {
        (problem["field"], problem["message"][:21]) for problem in api.get("/readyz").json()["errors"]
    }
    assert len(api.get("/v1/jobs").json()["data"]) == 1
    group.servers[1].start()
    wait_until(lambda: api.post("/v1/txt2img", json=BODY).status_code == 202, "jobs are accepted again")
