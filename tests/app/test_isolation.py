"""Owners cannot reach each other's jobs, images, events, uploads and idempotency keys."""

from __future__ import annotations

import json

import httpx2
import pytest
from fastapi.testclient import TestClient

from contracts.auth.api_keys import ApiKeyStore, Scope
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.redis import keys as redis_keys
from tests.support.images import encode_solid
from tests.support.scripted_worker import ScriptedWorker
from tests.support.worker_reports import report_worker

JOB = {"prompt": "a red circle"}
RED = encode_solid("RGB", (64, 64), "red")


class OwnerClient:
    """A client with a key."""

    def __init__(self, client: TestClient, token: str) -> None:
        self._client = client
        self.headers = {"Authorization": f"Bearer {token}"}

    def call(self, method: str, path: str, **options: object) -> httpx2.Response:
        headers = self.headers | options.pop("headers", {})  # type: ignore[operator]
        return self._client.request(method, path, headers=headers, **options)  # type: ignore[arg-type]

    def submit(self, **fields: object) -> str:
        response = self.call("POST", "/v1/txt2img", json=JOB | fields)
        assert response.status_code == 202, response.text
        id: str = response.json()["id"]
        return id


@pytest.fixture
def keys(queue: JobQueue) -> ApiKeyStore:
    return ApiKeyStore(queue.connection)


@pytest.fixture
def mine(client: TestClient, keys: ApiKeyStore) -> OwnerClient:
    return OwnerClient(client, keys.create("mine")[1])


@pytest.fixture
def theirs(client: TestClient, keys: ApiKeyStore) -> OwnerClient:
    return OwnerClient(client, keys.create("theirs", scopes=set(Scope))[1])


def test_another_owners_job_is_not_found_by_any_call(
    mine: OwnerClient, theirs: OwnerClient, worker: ScriptedWorker
) -> None:
    waiting, done = mine.submit(), mine.submit()
    claims = [worker.claim() for _ in range(2)]
    worker.complete(claims[1])
    for id in (waiting, done):
        calls = [
            ("GET", f"/v1/jobs/{id}"),
            ("GET", f"/v1/jobs/{id}/events"),
            ("GET", f"/v1/jobs/{id}/images/0"),
            ("POST", f"/v1/jobs/{id}/cancel"),
            ("POST", f"/v1/jobs/{id}/rerun"),
            ("DELETE", f"/v1/jobs/{id}"),
        ]
        unknown = [(method, path.replace(id, "0" * 32)) for method, path in calls]
        for call, nothing in zip(calls, unknown, strict=True):
            refused, missing = theirs.call(*call), theirs.call(*nothing)
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found"), call
            # The same text as for an unknown id, so it does not reveal that the job exists.
            assert refused.json()["detail"] == missing.json()["detail"].replace("0" * 32, id)
    assert mine.call("GET", f"/v1/jobs/{done}").json()["status"] == "completed"
    assert mine.call("GET", f"/v1/jobs/{waiting}").json()["status"] == "running"


def test_the_list_has_only_the_owners_jobs(mine: OwnerClient, theirs: OwnerClient) -> None:
    ids = {owner: owner.submit() for owner in (mine, theirs)}

    for owner, id in ids.items():
        assert [job["id"] for job in owner.call("GET", "/v1/jobs").json()["data"]] == [id]


def test_another_owners_image_cannot_be_used(
    mine: OwnerClient, theirs: OwnerClient, worker: ScriptedWorker
) -> None:
    upload = mine.call("POST", "/v1/uploads", content=RED, headers={"Content-Type": "image/png"}).json()["id"]
    id = mine.submit()
    worker.complete(worker.claim())

    for name in (upload, f"job:{id}/0"):
        body = JOB | {"image": name}
        refused = theirs.call("POST", "/v1/img2img", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "image")
        assert "does not exist or has expired" in refused.json()["errors"][0]["message"]
        assert mine.call("POST", "/v1/img2img", json=body).status_code == 202


def test_the_same_image_is_a_separate_upload_for_each_owner(mine: OwnerClient, theirs: OwnerClient) -> None:
    first, second, again = (
        owner.call("POST", "/v1/uploads", content=RED, headers={"Content-Type": "image/png"})
        for owner in (mine, theirs, mine)
    )

    assert [first.status_code, second.status_code, again.status_code] == [201, 201, 200]


def test_an_idempotency_key_belongs_to_its_owner(mine: OwnerClient, theirs: OwnerClient) -> None:
    answers = [
        owner.call("POST", "/v1/txt2img", json=JOB, headers={"Idempotency-Key": "k"})
        for owner in (mine, theirs, mine)
    ]

    ids = [answer.json()["id"] for answer in answers]
    assert ids[0] == ids[2] != ids[1]
    assert "Idempotency-Replayed" not in answers[1].headers


def test_keys_of_the_same_owner_share_their_jobs(client: TestClient, keys: ApiKeyStore) -> None:
    first, second = (OwnerClient(client, keys.create(name, owner="team")[1]) for name in ("laptop", "ci"))
    id = first.submit()

    assert second.call("GET", f"/v1/jobs/{id}").status_code == 200
    assert second.call("POST", f"/v1/jobs/{id}/cancel").json()["status"] == "cancelled"


def test_jobs_created_without_keys_belong_to_the_owner_local(client: TestClient, keys: ApiKeyStore) -> None:
    id = client.post("/v1/txt2img", json=JOB).json()["id"]
    local, other = (OwnerClient(client, keys.create("a", owner=owner)[1]) for owner in ("local", None))

    assert local.call("GET", f"/v1/jobs/{id}").status_code == 200
    # Until the service notices the first key, every client is `local`.
    while client.get("/v1/jobs").status_code != 401:
        pass
    assert other.call("GET", f"/v1/jobs/{id}").status_code == 404


def test_owners_take_turns_however_much_each_has_queued(
    mine: OwnerClient, theirs: OwnerClient, worker: ScriptedWorker
) -> None:
    many = [mine.submit() for _ in range(6)]
    few = [theirs.submit() for _ in range(2)]

    order = [worker.claim().job.id for _ in range(8)]

    assert order[:4] == [many[0], few[0], many[1], few[1]]
    assert order[4:] == many[2:]


def test_only_admins_see_workers_and_their_memory(mine: OwnerClient, theirs: OwnerClient, queue: JobQueue) -> None:
    report_worker(queue, "worker-7", 256)
    body = {"task": "txt2img", "prompt": "x"}

    shown, all_of_it = (one.call("POST", "/v1/plan", json=body).json() for one in (mine, theirs))

    assert "worker-7" not in json.dumps(shown)
    assert (shown["worker"], shown["plan"], shown["workers"], shown["runs"]) == (None, None, [], True)
    assert shown["peak_bytes"] == all_of_it["plan"]["peak_bytes"]
    assert shown["placement"]["vae"] == "device"
    assert shown["reason"] == all_of_it["plan"]["name"]
    assert (all_of_it["worker"], all_of_it["workers"][0]["worker"]) == ("worker-7", "worker-7")
    assert "worker-7" not in mine.call("GET", "/v1/models").text
    assert mine.call("GET", "/v1/workers").status_code == 403


def test_a_model_is_shown_to_be_warm_without_the_names_of_workers(mine: OwnerClient, queue: JobQueue) -> None:
    publish(queue.connection, WorkerReport(id="worker-7", state="idle", warm=["shapes-sdxl"]), ttl_seconds=60)

    model = mine.call("GET", "/v1/models/shapes-sdxl").json()

    assert (model["warm"], model["warm_on"]) == (True, [])


def test_nobody_is_told_of_the_jobs_of_others_that_an_older_receipt_counted(
    mine: OwnerClient, theirs: OwnerClient, queue: JobQueue, worker: ScriptedWorker
) -> None:
    counts = {"batch_images": 5, "batch_jobs": 4, "embeddings": {"hits": 3, "misses": 0, "ahead": 0}}
    for owner in (mine, theirs):
        id = owner.submit()
        worker.complete(worker.claim())
        receipt = json.loads(queue.connection.hget(redis_keys.JOB + id, "receipt") or "")
        for name in ("mean_rows", "pauses", "joined"):
            del receipt[name]
        older = receipt | {"batch_images": 2, "batch_jobs": 1, "shared": True, "whole_call": counts}
        queue.connection.hset(redis_keys.JOB + id, "receipt", json.dumps(older))
        views = (
            owner.call("GET", f"/v1/jobs/{id}").json(),
            owner.call("GET", "/v1/jobs?include=receipt").json()["data"][0],
        )
        for view in views:
            assert "whole_call" not in view["receipt"]
            assert (view["receipt"]["mean_rows"], view["receipt"]["pauses"]) == (1.0, 0)
