"""`/metrics`: one set of metrics for the whole service, read by Prometheus' own parser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from app.main import create_app
from app.settings import ApiSettings
from contracts.metrics import ROWS, Counters, TotalsWriter
from contracts.outbound.outbox import Outbox, Outcome
from contracts.processes.workers import WorkerReport, publish
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from tests.support.api_process import api_process
from tests.support.forked_programs import ForkedProgram
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until

BODY = {"prompt": "a red circle", "model": "shapes-sdxl"}
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(client: httpx.Client | TestClient) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value_of(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"darkroom_{name}", frozenset(labels.items())))


def routes_of(samples: Samples) -> set[str]:
    return {dict(labels)["route"] for name, labels in samples if name == "darkroom_http_requests_total"}


def test_jobs_are_shown_by_state_and_queues_by_depth_and_age(client: TestClient, worker: ScriptedWorker) -> None:
    for _ in range(3):
        client.post("/v1/txt2img", json=BODY)
    worker.complete(worker.claim())
    worker.claim()

    samples = scrape(client)

    kind = {"model": "shapes-sdxl", "task": "txt2img"}
    for state in ("queued", "running", "completed"):
        assert value_of(samples, "jobs", state=state, **kind) == 1
    assert value_of(samples, "jobs_accepted_total", **kind) == 3
    assert value_of(samples, "jobs_ended_total", status="completed", **kind) == 1
    assert value_of(samples, "queue_jobs", model="shapes-sdxl", priority="normal") == 1
    assert (value_of(samples, "queue_oldest_seconds", model="shapes-sdxl", priority="normal") or 0) > 0
    assert value_of(samples, "queue_jobs", model="shapes-sdxl", priority="high") == 0


def test_webhook_messages_are_pending_until_they_are_delivered(client: TestClient, queue: JobQueue) -> None:
    assert value_of(scrape(client), "webhooks_pending") == 0
    for events in (["queued"], ["queued"], ["started"]):
        client.post("/v1/txt2img", json=BODY | {"webhook": {"url": "https://8.8.8.8/", "events": events}})
    assert value_of(scrape(client), "webhooks_pending") == 2

    outbox = Outbox(queue.connection, "dispatcher-of-the-test", lease_seconds=30)
    first, second = outbox.claim(()), outbox.claim(())
    assert first is not None
    assert second is not None
    outbox.finish(first, Outcome("again", 500, "x", pause_seconds=1000))
    assert value_of(scrape(client), "webhooks_pending") == 2
    outbox.finish(second, Outcome("delivered", 200))
    assert value_of(scrape(client), "webhooks_pending") == 1


def test_counters_of_workers_are_shown_with_cumulative_buckets(client: TestClient, queue: JobQueue) -> None:
    counters = Counters()
    for seconds in (0.2, 0.3, 1000.0):
        counters.observe("stage_seconds", seconds, stage="denoise", model="m", task="txt2img")
    counters.count("evictions", model="m", to="host")
    TotalsWriter(queue.connection, counters).flush()

    samples = scrape(client)

    labels = {"stage": "denoise", "model": "m", "task": "txt2img"}
    counted = [
        value_of(samples, "stage_seconds_bucket", le=le, **labels)
        for le in ("0.1", "0.25", "0.5", "600.0", "+Inf")
    ]
    assert counted == [0, 1, 2, 2, 3]
    assert value_of(samples, "stage_seconds_count", **labels) == 3
    assert value_of(samples, "stage_seconds_sum", **labels) == pytest.approx(1000.5)
    assert value_of(samples, "evictions_total", model="m", to="host") == 1


def test_live_workers_are_shown_by_state_with_their_memory(client: TestClient, queue: JobQueue) -> None:
    report = WorkerReport(id="one", state="busy", budget_bytes=2**30, resident_bytes=2**20, warm=["shapes-sdxl"])
    publish(queue.connection, report, 60)

    samples = scrape(client)

    assert [value_of(samples, "workers", state=state) for state in ("busy", "idle")] == [1, 0]
    assert value_of(samples, "worker_budget_bytes", worker="one") == 2**30
    assert value_of(samples, "worker_resident_bytes", worker="one") == 2**20
    assert value_of(samples, "warm_workers", model="shapes-sdxl") == 1


def test_requests_are_counted_by_route_and_unknown_paths_and_methods_as_other(client: TestClient) -> None:
    for number in range(5):
        client.get(f"/v1/jobs/unknown-{number}")
        client.get(f"/nothing/here/{number}")
        client.request(f"BREW{number}", "/v1/jobs")

    samples = scrape(client)

    assert value_of(samples, "http_requests_total", route="/v1/jobs/{id}", method="GET", status="404") == 5
    assert value_of(samples, "http_requests_total", route="other", method="GET", status="404") == 5
    assert value_of(samples, "http_requests_total", route="/v1/jobs", method="other", status="405") == 5
    assert value_of(samples, "http_request_seconds_count", route="/v1/jobs/{id}", method="GET") == 5
    assert routes_of(samples) == {"/v1/jobs/{id}", "other", "/v1/jobs"}


def test_a_request_that_fails_is_counted_as_such(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(JobQueue, "fetch", fail)
    assert client.get("/v1/jobs/one").status_code == 500

    assert value_of(scrape(client), "http_requests_total", route="/v1/jobs/{id}", method="GET", status="500") == 1


@pytest.fixture
def two_processes(settings: SharedSettings) -> Iterator[list[tuple[httpx.Client, ForkedProgram]]]:
    """Two API processes behind one Redis, that flush their counters only when scraped or at exit."""
    environment = {"DARKROOM_API_FLUSH_SECONDS": "3600"}
    with (
        api_process(settings.redis_url, settings.data, **environment) as api,
        api_process(settings.redis_url, settings.data, **environment) as other_api,
    ):
        yield [api, other_api]


def test_two_processes_show_the_same_figures_and_each_request_once(
    two_processes: list[tuple[httpx.Client, ForkedProgram]], queue: JobQueue, worker: ScriptedWorker
) -> None:
    (api, _), (other_api, process) = two_processes
    for client, times in ((api, 3), (other_api, 4)):
        for _ in range(times):
            assert client.post("/v1/txt2img", json=BODY).status_code == 202
    worker.complete(worker.claim())
    labels = {"route": "/v1/txt2img", "method": "POST"}

    for client in (api, other_api, api):
        samples = scrape(client)
        assert value_of(samples, "jobs_accepted_total", model="shapes-sdxl", task="txt2img") == 7
        assert value_of(samples, "jobs", state="queued", model="shapes-sdxl", task="txt2img") == 6
    assert value_of(samples, "http_requests_total", status="202", **labels) == 7
    assert value_of(samples, "http_request_seconds_count", **labels) == 7

    assert other_api.post("/v1/txt2img", json=BODY).status_code == 202
    process.terminate()
    process.wait(60)
    assert value_of(scrape(api), "http_requests_total", status="202", **labels) == 8, "flushed at exit"


def test_a_process_flushes_its_counters_periodically(settings: SharedSettings) -> None:
    quick = {"DARKROOM_API_FLUSH_SECONDS": "0.05"}
    labels = {"route": "/v1/jobs", "method": "GET", "status": "200"}
    with (
        api_process(settings.redis_url, settings.data, **quick) as (api, _),
        api_process(settings.redis_url, settings.data) as (other_api, _),
    ):
        api.get("/v1/jobs")
        wait_until(lambda: value_of(scrape(other_api), "http_requests_total", **labels) == 1)


def test_metrics_are_served_while_redis_is_unavailable(settings: SharedSettings, client: TestClient) -> None:
    away = ApiSettings(shared=settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    with TestClient(create_app(away)) as offline:
        assert offline.get("/v1/jobs").status_code == 503
        assert scrape(offline) == {("darkroom_redis_up", frozenset()): 0}

    assert value_of(scrape(client), "redis_up") == 1


def test_openmetrics_is_served_to_clients_that_accept_it(client: TestClient) -> None:
    client.post("/v1/txt2img", json=BODY)
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    names = {family.name for family in read_openmetrics(response.text)}  # type: ignore[no-untyped-call]
    assert {"darkroom_jobs_accepted", "darkroom_http_request_seconds", "darkroom_workers"} <= names


def test_every_row_of_the_table_is_shown(client: TestClient) -> None:
    text = client.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}

    for row in ROWS.values():
        assert families[f"darkroom_{row.name}"].type == row.kind
        assert families[f"darkroom_{row.name}"].documentation == row.help
