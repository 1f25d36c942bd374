"""What is one owner's is nobody else's: another key's jobs, images, events, uploads and idempotency keys."""

from __future__ import annotations

import httpx2
import pytest
from fastapi.testclient import TestClient

from contracts.auth.api_keys import ApiKeyStore, Scope
from contracts.queue.client import JobQueue
from tests.support.images import encode_solid
from tests.support.scripted_worker import ScriptedWorker

JOB = {"prompt": "a red circle"}
RED = encode_solid("RGB", (64, 64), "red")


class Holder:
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
def mine(client: TestClient, keys: ApiKeyStore) -> Holder:
    return Holder(client, keys.create("mine")[1])


@pytest.fixture
def theirs(client: TestClient, keys: ApiKeyStore) -> Holder:
    return Holder(client, keys.create("theirs", scopes=set(Scope))[1])


def test_another_keys_job_is_not_found_whatever_is_asked_of_it(
    mine: Holder, theirs: Holder, worker: ScriptedWorker
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
            # The same words: nobody learns that there is such a job.
            assert refused.json()["detail"] == missing.json()["detail"].replace("0" * 32, id)
    assert mine.call("GET", f"/v1/jobs/{done}").json()["status"] == "completed"
    assert mine.call("GET", f"/v1/jobs/{waiting}").json()["status"] == "running"


def test_a_list_has_only_ones_own_jobs(mine: Holder, theirs: Holder) -> None:
    ids = {holder: holder.submit() for holder in (mine, theirs)}

    for holder, id in ids.items():
        assert [job["id"] for job in holder.call("GET", "/v1/jobs").json()["data"]] == [id]


def test_another_keys_picture_cannot_be_named(mine: Holder, theirs: Holder, worker: ScriptedWorker) -> None:
    upload = mine.call("POST", "/v1/uploads", content=RED).json()["id"]
    id = mine.submit()
    worker.complete(worker.claim())

    for name in (upload, f"job:{id}/0"):
        body = JOB | {"image": name}
        refused = theirs.call("POST", "/v1/img2img", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "image")
        assert "does not exist or has expired" in refused.json()["errors"][0]["message"]
        assert mine.call("POST", "/v1/img2img", json=body).status_code == 202


def test_the_same_picture_is_new_to_each_owner(mine: Holder, theirs: Holder) -> None:
    first, second, again = (holder.call("POST", "/v1/uploads", content=RED) for holder in (mine, theirs, mine))

    assert [first.status_code, second.status_code, again.status_code] == [201, 201, 200]


def test_an_idempotency_key_is_its_owners(mine: Holder, theirs: Holder) -> None:
    answers = [
        holder.call("POST", "/v1/txt2img", json=JOB, headers={"Idempotency-Key": "k"})
        for holder in (mine, theirs, mine)
    ]

    ids = [answer.json()["id"] for answer in answers]
    assert ids[0] == ids[2] != ids[1]
    assert "Idempotency-Replayed" not in answers[1].headers


def test_keys_of_one_owner_share_what_they_make(client: TestClient, keys: ApiKeyStore) -> None:
    first, second = (Holder(client, keys.create(name, owner="team")[1]) for name in ("laptop", "ci"))
    id = first.submit()

    assert second.call("GET", f"/v1/jobs/{id}").status_code == 200
    assert second.call("POST", f"/v1/jobs/{id}/cancel").json()["status"] == "cancelled"


def test_what_was_made_without_keys_is_the_owners_named_local(client: TestClient, keys: ApiKeyStore) -> None:
    id = client.post("/v1/txt2img", json=JOB).json()["id"]
    heir, other = (Holder(client, keys.create("a", owner=owner)[1]) for owner in ("local", None))

    assert heir.call("GET", f"/v1/jobs/{id}").status_code == 200
    # Until the service has noticed that there are keys, everybody is local.
    while client.get("/v1/jobs").status_code != 401:
        pass
    assert other.call("GET", f"/v1/jobs/{id}").status_code == 404


def test_keys_take_turns_however_much_each_has_queued(
    mine: Holder, theirs: Holder, worker: ScriptedWorker
) -> None:
    many = [mine.submit() for _ in range(6)]
    few = [theirs.submit() for _ in range(2)]

    order = [worker.claim().job.id for _ in range(8)]

    assert order[:4] == [many[0], few[0], many[1], few[1]]
    assert order[4:] == many[2:]
