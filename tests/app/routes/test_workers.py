"""The list of live workers over HTTP."""

from __future__ import annotations

from fastapi.testclient import TestClient

from contracts.memory.planner import Capacity
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue


def test_a_worker_is_shown_without_what_plans_are_made_from_unless_that_is_asked_for(
    client: TestClient, queue: JobQueue
) -> None:
    capacity = Capacity(budget_bytes=2**30, models={}, extras={})
    sizes = {
        "capacity": capacity,
        "placement": {"sd": {"unet": "device"}},
        "ready": ["sd"],
        "stage_seconds": {"load": 1},
    }
    publish(queue.connection, WorkerReport(id="w1", state="idle", warm=["sd"], **sizes), ttl_seconds=60)
    (short,), (long,) = (client.get(f"/v1/workers{query}").json()["data"] for query in ("", "?detail=plan"))
    assert short["warm"] == ["sd"]
    assert long.keys() - short.keys() == sizes.keys()
    assert long["capacity"]["budget_bytes"] == 2**30
    wrong = client.get("/v1/workers?detail=all")
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "detail")
