"""What operators do over HTTP with the jobs of all owners: list, cancel, requeue, purge, pause, drain."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient

from contracts.auth.api_keys import ApiKeyStore, Scope
from contracts.jobs.failures import FailureCode
from contracts.jobs.receipt import Energy
from contracts.jobs.records import JobError
from contracts.leases.claim import Report
from contracts.leases.criteria import ClaimCriteria
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.safety import flagged_key
from contracts.storage import Storage
from tests.support.requests import submit
from tests.support.scripted_worker import ScriptedWorker

Json = dict[str, Any]
LOST = JobError.of(FailureCode.WORKER_LOST, "lost")


class Caller:
    """A client with the API key of one owner."""

    def __init__(self, client: TestClient, keys: ApiKeyStore, owner: str, *scopes: Scope) -> None:
        self.key, token = keys.create(owner, owner, scopes=set(scopes))
        self._client, self._headers = client, {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        return self._client.get(f"/v1/{path}", headers=self._headers)

    def post(self, path: str, **options: Any) -> Any:
        return self._client.post(f"/v1/{path}", headers=self._headers, **options)

    def submit(self, **fields: Any) -> str:
        answer = self.post("txt2img", json={"prompt": "a secret circle", "seed": 1, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])


@pytest.fixture
def admin(client: TestClient, queue: JobQueue) -> Caller:
    return Caller(client, ApiKeyStore(queue.connection), "root", Scope.ADMIN)


@pytest.fixture
def ann(client: TestClient, queue: JobQueue) -> Caller:
    return Caller(client, ApiKeyStore(queue.connection), "ann", Scope.GENERATE)


@pytest.fixture
def bob(client: TestClient, queue: JobQueue) -> Caller:
    return Caller(client, ApiKeyStore(queue.connection), "bob", Scope.GENERATE)


def data(answer: Any) -> list[Json]:
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["data"]
    return found


CALLS = [
    "GET jobs", "GET jobs/x", "POST jobs/x/cancel", "POST jobs/x/requeue", "POST jobs/x/priority?priority=low",
    "GET queues", "POST queues/purge?all=true", "GET holds", "POST pause", "POST resume", "POST workers/w/drain",
    "POST workers/w/undrain", "GET usage", "GET keys",
]  # fmt: skip


def test_a_key_without_the_scope_may_do_none_of_it(ann: Caller, client: TestClient) -> None:
    for call in CALLS:
        method, path = call.split()
        refused = getattr(ann, method.lower())(f"admin/{path}")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), call
        assert client.request(method, f"/v1/admin/{path}").status_code == 401
    assert ann.submit()  # nothing was paused


def test_jobs_of_all_owners_are_listed_without_prompts_in_pages_and_by_filters(
    admin: Caller, ann: Caller, bob: Caller
) -> None:
    ids = [ann.submit(), bob.submit(priority="low"), ann.submit()]

    first = admin.get("admin/jobs?limit=2").json()
    rest = admin.get(f"admin/jobs?limit=2&cursor={first['next_cursor']}").json()

    assert [job["id"] for job in first["data"] + rest["data"]] == ids[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [(job["owner"], job["priority"], job["api_key"]) for job in first["data"]] == [
        ("ann", "normal", ann.key.id),
        ("bob", "low", bob.key.id),
    ]
    assert "secret circle" not in str(first)
    for query, found in {
        "owner=bob": [1],
        "priority=normal": [2, 0],
        "status=failed": [],
        "owner=zoe": [],
    }.items():
        assert [job["id"] for job in data(admin.get(f"admin/jobs?{query}"))] == [ids[n] for n in found], query


def test_a_job_is_shown_with_its_prompt_to_admins_only(admin: Caller, ann: Caller, bob: Caller) -> None:
    id = ann.submit()
    shown = admin.get(f"admin/jobs/{id}").json()
    assert (shown["owner"], shown["parameters"]["prompt"]) == ("ann", "a secret circle")
    assert shown["links"]["cancel"].endswith(f"/v1/admin/jobs/{id}/cancel")
    assert bob.get(f"jobs/{id}").status_code == 404
    assert admin.get("admin/jobs/" + "0" * 32).status_code == 404


def test_any_job_can_be_cancelled(admin: Caller, ann: Caller) -> None:
    id = ann.submit()
    assert admin.post(f"admin/jobs/{id}/cancel").json()["status"] == "cancelled"
    assert ann.get(f"jobs/{id}").json()["status"] == "cancelled"


def test_a_failed_job_is_requeued_and_completes_under_its_id(
    admin: Caller, ann: Caller, worker: ScriptedWorker, queue: JobQueue
) -> None:
    id = ann.submit(deadline_seconds=3600)
    worker.claims.fail(worker.claim(), LOST)
    assert ann.get(f"jobs/{id}").json()["status"] == "failed"

    requeued = admin.post(f"admin/jobs/{id}/requeue").json()

    assert (requeued["status"], requeued["error"], requeued["attempts"]) == ("queued", None, 0)
    assert requeued["expires_at"] is None
    again = admin.post(f"admin/jobs/{id}/requeue")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert "only a failed job can be requeued" in again.json()["detail"]
    worker.complete(worker.claim())
    assert ann.get(f"jobs/{id}").json()["status"] == "completed"
    assert len(ann.get(f"jobs/{id}").json()["images"]) == 1


def test_a_flagged_image_is_the_owners_once_it_is_released_until_the_job_runs_again(
    admin: Caller, ann: Caller, bob: Caller, worker: ScriptedWorker, storage: Storage
) -> None:
    id = ann.submit()
    storage.write(flagged_key(id, 0), b"png")
    assert admin.post(f"admin/jobs/{id}/flagged/0/release").status_code == 409  # it still waits
    worker.claims.fail(worker.claim(), JobError.of(FailureCode.FLAGGED, "flagged image 0"))
    assert ann.post(f"admin/jobs/{id}/flagged/0/release").status_code == 403
    assert ann.get(f"jobs/{id}/released/0").status_code == 404

    assert admin.post(f"admin/jobs/{id}/flagged/0/release").json()["status"] == "failed"

    job = ann.get(f"jobs/{id}").json()
    assert job["links"]["released/0"].endswith(f"/v1/jobs/{id}/released/0")
    assert ann.get(f"jobs/{id}/released/0").content == b"png"
    assert [caller.get(f"jobs/{id}/released/{n}").status_code for caller, n in ((bob, 0), (ann, 1))] == [404] * 2
    assert admin.post(f"admin/jobs/{id}/requeue").status_code == 200
    assert "released/0" not in ann.get(f"jobs/{id}").json()["links"]
    assert ann.get(f"jobs/{id}/released/0").status_code == 404


def test_a_waiting_job_gets_another_priority_and_a_running_one_does_not(
    admin: Caller, ann: Caller, worker: ScriptedWorker
) -> None:
    first, second = ann.submit(), ann.submit()

    changed = admin.post(f"admin/jobs/{second}/priority?priority=high")

    assert (changed.status_code, changed.json()["priority"]) == (200, "high")
    claim = worker.claim()
    assert claim.job.id == second
    refused = admin.post(f"admin/jobs/{second}/priority?priority=low")
    assert (refused.status_code, "only while the job waits" in refused.json()["detail"]) == (409, True)
    wrong = admin.post(f"admin/jobs/{first}/priority?priority=urgent").json()["errors"][0]
    assert wrong["field"] == "priority"
    worker.complete(claim)
    worker.complete(worker.claim())
    queues = data(admin.get("admin/queues"))
    assert queues == []


def test_queues_are_listed_by_priority_model_and_owner_with_their_predicted_seconds(
    admin: Caller, ann: Caller, bob: Caller, worker: ScriptedWorker
) -> None:
    ann.submit()
    worker.complete(worker.claim(), denoise_seconds=2.0)
    for _ in range(3):
        ann.submit()
    bob.submit(priority="low")

    rows = data(admin.get("admin/queues"))

    assert [(row["priority"], row["model"], row["owner"], row["waiting"]) for row in rows] == [
        ("normal", "shapes-sdxl", "ann", 3),
        ("low", "shapes-sdxl", "bob", 1),
    ]
    assert rows[0]["predicted_seconds"] == pytest.approx(6.0)
    assert rows[0]["oldest_seconds"] >= 0
    page = admin.get("admin/queues?limit=1").json()
    assert page["has_more"]
    assert data(admin.get(f"admin/queues?limit=1&cursor={page['next_cursor']}")) == [
        {**rows[1], "oldest_seconds": pytest.approx(rows[1]["oldest_seconds"], abs=60)}
    ]
    assert [row["owner"] for row in data(admin.get("admin/queues?owner=bob"))] == ["bob"]
    assert admin.get("admin/queues?cursor=%25").json()["errors"][0]["field"] == "cursor"


def test_a_purge_cancels_what_is_named_and_nothing_where_nothing_is(
    admin: Caller, ann: Caller, bob: Caller, worker: ScriptedWorker
) -> None:
    ann.submit()
    running = worker.claim().job.id
    mine, theirs = [ann.submit(), ann.submit(priority="low")], bob.submit()

    refused = admin.post("admin/queues/purge")
    assert refused.json()["errors"][0]["allowed"] == ["model", "owner", "priority", "all=true"]
    assert admin.post("admin/queues/purge?owner=ann").json() == {"cancelled": 2, "has_more": False}

    assert [ann.get(f"jobs/{id}").json()["status"] for id in (*mine, running)] == ["cancelled"] * 2 + ["running"]
    assert bob.get(f"jobs/{theirs}").json()["status"] == "queued"
    assert admin.post("admin/queues/purge?all=true").json()["cancelled"] == 1


def test_a_paused_model_runs_no_job_until_it_is_resumed(
    admin: Caller, ann: Caller, worker: ScriptedWorker
) -> None:
    paused = admin.post("admin/pause?model=shapes-sdxl").json()["paused"]
    assert [(hold["name"], hold["api_key"]) for hold in paused] == [("shapes-sdxl", admin.key.id)]
    id, other = ann.submit(), ann.submit(model="shapes-flux")

    claim = worker.claim()
    assert claim.job.id == other
    assert worker.claims.claim(ClaimCriteria()) is None
    assert "paused" in ann.get(f"jobs/{id}").json()["progress"]["eta_reason"]
    assert data(admin.get("admin/queues"))[0]["paused"] is True

    assert admin.post("admin/resume?model=shapes-sdxl").json()["paused"] == []
    assert worker.claim().job.id == id
    assert admin.post("admin/pause?model=nothing").status_code == 404


def test_a_pause_of_everything_and_one_of_a_model_are_ended_separately(
    admin: Caller, ann: Caller, worker: ScriptedWorker
) -> None:
    admin.post("admin/pause")
    admin.post("admin/pause?model=shapes-sdxl")
    ann.submit()
    assert worker.claims.claim(ClaimCriteria()) is None
    admin.post("admin/resume")
    assert worker.claims.claim(ClaimCriteria()) is None
    admin.post("admin/resume?model=shapes-sdxl")
    assert worker.claim()


def test_a_drained_worker_gets_no_job_and_is_shown_as_paused(
    admin: Caller, ann: Caller, worker: ScriptedWorker, queue: JobQueue
) -> None:
    unknown = admin.post("admin/workers/scripted-worker/drain")
    assert (unknown.status_code, "scripted-worker" in unknown.json()["detail"]) == (404, True)
    publish(queue.connection, WorkerReport(id="scripted-worker", state="idle"), 600)
    first = ann.submit()
    claim = worker.claim()
    ann.submit()

    drained = admin.post("admin/workers/scripted-worker/drain").json()["drained"]

    assert [hold["name"] for hold in drained] == ["scripted-worker"]
    assert worker.claims.claim(ClaimCriteria()) is None
    assert worker.claims.peek(ClaimCriteria()).jobs == []
    (shown,) = data(admin.get("workers"))
    assert (shown["state"], shown["reason"].startswith("drained by the operator")) == ("paused", True)
    worker.complete(claim)  # what it had begun
    assert ann.get(f"jobs/{first}").json()["status"] == "completed"
    assert admin.post("admin/workers/scripted-worker/undrain").json()["drained"] == []
    assert worker.claim()


def test_usage_is_counted_by_key_model_and_day(
    admin: Caller, ann: Caller, bob: Caller, worker: ScriptedWorker
) -> None:
    ann.submit(num_images=2, num_inference_steps=5)
    worker.complete(worker.claim(), denoise_seconds=2.0)
    bob.submit()
    energy = Energy(joules=97.5, source="estimated", assumed_watts=65)
    claim = worker.claim()
    worker.claims.advance([Report(claim, None, 1.5, energy)])
    worker.claims.fail(claim, LOST)  # without figures of its own: those of its last report count

    rows = {row["api_key"]: row for row in data(admin.get("admin/usage"))}

    mine, theirs = rows[ann.key.id], rows[bob.key.id]
    assert (mine["jobs"], mine["images"], mine["image_steps"], mine["pixels"]) == (1, 2, 10, 2 * 64 * 64)
    assert mine["model"] == theirs["model"] == "shapes-sdxl"
    assert (theirs["jobs"], theirs["images"], theirs["device_seconds"]) == (1, 0, 1.5)
    assert (theirs["joules"], theirs["estimated_joules"], mine["joules"]) == (97.5, 97.5, 0)
    page = admin.get("admin/usage?limit=1").json()
    rest = data(admin.get(f"admin/usage?limit=1&cursor={page['next_cursor']}"))
    assert [*page["data"], *rest] == sorted(rows.values(), key=lambda row: row["api_key"])
    assert [row["api_key"] for row in data(admin.get(f"admin/usage?key={bob.key.id}"))] == [bob.key.id]
    assert data(admin.get("admin/usage?to=0001-01-01")) == []
    assert data(ann.get("usage")) == [mine]  # a caller sees the jobs of its own key only
    assert data(bob.get("usage?from=2026-01-01&to=2026-01-02")) == []
    for odd in ("0", "1764460800", "2026-01-01T00:00:00", "20260101"):
        (problem,) = admin.get(f"usage?to={odd}").json()["errors"]
        assert problem["field"] == "to"
        assert f"YYYY-MM-DD, got '{odd}'" in problem["message"]
    for wrong in (
        "from=2026-02-01&to=2026-01-01",
        "from=2025-01-01&to=2026-01-01",
        "from=0002-01-01&to=0001-01-01",
    ):
        assert admin.get(f"admin/usage?{wrong}").json()["errors"][0]["field"] == "from"


def test_keys_are_listed_with_their_last_use_and_without_secrets(admin: Caller, ann: Caller) -> None:
    page = admin.get("admin/keys?limit=1").json()
    rest = admin.get(f"admin/keys?limit=1&cursor={page['next_cursor']}").json()
    assert [key["owner"] for key in page["data"] + rest["data"]] == ["root", "ann"]
    assert page["data"][0]["last_used_at"] is not None
    assert rest["data"][0]["last_used_at"] is None
    assert "sha256" not in page["data"][0]
    assert not rest["has_more"]


def test_each_action_is_a_line_of_the_log_without_a_prompt(
    admin: Caller, ann: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="app.audit")
    id = ann.submit()
    admin.get(f"admin/jobs/{id}")
    admin.post(f"admin/jobs/{id}/priority?priority=low")
    admin.post("admin/pause")
    admin.post("admin/resume")
    admin.post("admin/queues/purge?owner=ann")
    lines = [record.getMessage() for record in caplog.records if record.name == "app.audit"]
    by = f"operator {admin.key.id}: "
    assert lines == [
        f"{by}show job (job_id {id})",
        f"{by}change priority (job_id {id}, priority low)",
        f"{by}pause (of_model all)",
        f"{by}resume (of_model all)",
        f"{by}purge (cancelled 1, of_owner ann)",
    ]


def test_without_keys_everybody_at_this_machine_is_an_operator(client: TestClient) -> None:
    id = submit(client)["id"]
    (job,) = client.get("/v1/admin/jobs").json()["data"]
    assert (job["id"], job["owner"], job["api_key"]) == (id, "local", "anonymous")
