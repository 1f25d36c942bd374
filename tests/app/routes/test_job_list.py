"""The list of jobs over HTTP: order, filters, pages; and the deletion of jobs."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from contracts.jobs.records import JobState
from contracts.queue.client import JobQueue
from contracts.storage import Storage
from tests.support.requests import submit
from tests.support.scripted_worker import ScriptedWorker


def list_ids(client: TestClient, query: str = "") -> list[str]:
    answer = client.get(f"/v1/jobs{query}")
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["data"]]


def test_no_jobs_are_an_empty_list(client: TestClient) -> None:
    assert client.get("/v1/jobs").json() == {"object": "list", "data": [], "has_more": False, "next_cursor": None}


def test_jobs_are_listed_newest_first_in_the_form_of_a_single_job(
    client: TestClient, worker: ScriptedWorker
) -> None:
    ids = [submit(client)["id"] for _ in range(3)]
    worker.complete(worker.claim())

    jobs = client.get("/v1/jobs").json()["data"]

    assert [job["id"] for job in jobs] == ids[::-1]
    finished = client.get(f"/v1/jobs/{ids[0]}").json()
    assert jobs[2] == {name: value for name, value in finished.items() if name != "receipt"}


def test_a_list_has_receipts_only_where_they_are_asked_for(client: TestClient, worker: ScriptedWorker) -> None:
    ids = [submit(client)["id"] for _ in range(2)]
    worker.complete(worker.claim())

    plain, full = (client.get(f"/v1/jobs{query}").json()["data"] for query in ("", "?include=receipt"))
    unknown = client.get("/v1/jobs?include=images")

    assert ["receipt" in job for job in plain] == [False, False]
    assert ["receipt" in job for job in full] == [False, True]
    assert full[1] == client.get(f"/v1/jobs/{ids[0]}").json()
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (422, "include")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?status=completed", [0]),
        ("?status=queued&task=img2img", [2]),
        ("?task=txt2img", [3, 1, 0]),
        ("?model=shapes-sdxl", [3, 2, 1, 0]),
        ("?model=other", []),
        ("?metadata.team=ads", [3, 1]),
        ("?metadata.team=ads&metadata.who=me", [3]),
        ("?metadata.team=ads&status=completed", []),
        ("?metadata.nothing=", []),
    ],
)
def test_only_jobs_that_match_every_filter_are_listed(
    client: TestClient, worker: ScriptedWorker, query: str, found: list[int]
) -> None:
    ids = [
        submit(client)["id"],
        submit(client, metadata={"team": "ads"})["id"],
        submit(client, "img2img", metadata={"team": "sales"})["id"],
        submit(client, metadata={"team": "ads", "who": "me"})["id"],
    ]
    worker.complete(worker.claim())

    assert list_ids(client, query) == [ids[number] for number in found]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_have_every_job_once_while_new_jobs_arrive(client: TestClient, limit: int) -> None:
    ids = [submit(client)["id"] for _ in range(7)]
    found: list[str] = []
    query = f"?limit={limit}"
    while True:
        page = client.get(f"/v1/jobs{query}").json()
        found += [job["id"] for job in page["data"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        assert len(page["data"]) == limit
        submit(client)
        query = f"?limit={limit}&cursor={page['next_cursor']}"

    assert found == ids[::-1]


def test_a_cursor_stays_valid_when_its_job_is_deleted(client: TestClient) -> None:
    ids = [submit(client)["id"] for _ in range(3)]
    page = client.get("/v1/jobs?limit=1").json()
    client.post(f"/v1/jobs/{ids[2]}/cancel")
    assert client.delete(f"/v1/jobs/{ids[2]}").status_code == 204

    assert list_ids(client, f"?cursor={page['next_cursor']}") == [ids[1], ids[0]]


def test_a_page_can_span_more_jobs_than_one_read_from_redis(queue: JobQueue, client: TestClient) -> None:
    job = queue.fetch(submit(client)["id"])
    ids = [queue.submit(job.parameters, metadata={"n": str(number % 250)}).id for number in range(500)]

    assert list_ids(client, "?metadata.n=3&limit=100") == [ids[253], ids[3]]


def test_an_invalid_query_is_refused(client: TestClient, subtests: pytest.Subtests) -> None:
    for query, field in [
        ("status=done", "status"),
        ("task=video", "task"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=bmFuIHg", "cursor"),
        ("cursor=", "cursor"),
        ("state=queued", "state"),
        ("metadata=x", "metadata"),
        ("model=a&model=b", "model"),
    ]:
        with subtests.test(query=query, field=field):
            response = client.get(f"/v1/jobs?{query}")

            assert response.status_code == 422, response.text
            assert [entry["field"] for entry in response.json()["errors"]] == [field]


def test_other_owners_jobs_are_not_listed(client: TestClient, queue: JobQueue) -> None:
    mine = queue.fetch(submit(client)["id"])
    queue.submit(mine.parameters, owner="somebody")

    assert list_ids(client) == [mine.id]


def test_a_deleted_job_leaves_only_its_tombstone(
    client: TestClient, worker: ScriptedWorker, queue: JobQueue, storage: Storage
) -> None:
    other_id, id = submit(client)["id"], submit(client)["id"]
    for _ in range(2):
        worker.complete(worker.claim())

    response = client.delete(f"/v1/jobs/{id}")

    assert (response.status_code, response.content) == (204, b"")
    for again in (
        client.get(f"/v1/jobs/{id}"),
        client.get(f"/v1/jobs/{id}/images/0"),
        client.delete(f"/v1/jobs/{id}"),
    ):
        assert (again.status_code, again.json()["code"]) == (404, "not_found")
    assert list_ids(client) == [other_id]
    assert storage.find("images/") == storage.find(f"images/{other_id}/") != []
    named = [key for key in queue.connection.scan_iter("*") if id in str(key)]
    assert named == [f"darkroom:job:{id}"]
    assert queue.connection.hgetall(named[0]) == {"owner": "local", "gone": "deleted"}
    assert queue.connection.zrange(f"rq:finished:{queue.fetch(other_id).queue}", 0, -1) == [other_id]


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_an_unfinished_job_cannot_be_deleted(client: TestClient, worker: ScriptedWorker, state: JobState) -> None:
    id = submit(client)["id"]
    if state is JobState.RUNNING:
        worker.claim()

    response = client.delete(f"/v1/jobs/{id}")

    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"]) == (409, "conflict")
    assert client.get(f"/v1/jobs/{id}").json()["status"] == state


def test_cancelled_and_failed_jobs_can_be_deleted(
    client: TestClient, worker: ScriptedWorker, queue: JobQueue
) -> None:
    cancelled, failed = submit(client)["id"], submit(client)["id"]
    client.post(f"/v1/jobs/{cancelled}/cancel")
    worker.claims.finish(worker.claim(), JobState.FAILED)

    assert [client.delete(f"/v1/jobs/{id}").status_code for id in (cancelled, failed)] == [204, 204]
    assert list(queue.connection.scan_iter("rq:*:darkroom:*")) == []


def test_another_owners_job_cannot_be_deleted(client: TestClient, queue: JobQueue) -> None:
    theirs = queue.submit(queue.fetch(submit(client)["id"]).parameters, owner="somebody")
    queue.cancel(theirs.id)

    assert client.delete(f"/v1/jobs/{theirs.id}").status_code == 404
    assert queue.fetch(theirs.id).state is JobState.CANCELLED
