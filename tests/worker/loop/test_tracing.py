"""One trace from a client's header over the queue and a worker's stages to the receiver of the webhook."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.main import create_app
from app.settings import ApiSettings
from contracts.auth.signed_links import LinkSigner
from contracts.jobs.records import JobState
from contracts.metrics import Counters, TotalsWriter
from contracts.outbound.outbox import Outbox
from contracts.outbound.signing import Secrets
from contracts.queue.client import JobQueue
from contracts.redis.connection import connect
from contracts.settings import OutboundSettings, SharedSettings
from contracts.storage import Storage
from contracts.tracing.open_telemetry import OpenTelemetryTracing
from contracts.tracing.trace_context import read_trace_context
from dispatcher.dispatcher import Dispatcher
from dispatcher.http_client import Poster
from dispatcher.settings import WebhookSettings
from tests.support.receiver import Receiver, receiving
from tests.support.waiting import wait_until
from tests.support.workers import at_step, make_consumer, send_sigterm, work_until_ended
from worker.loop.progress import JobWatch
from worker.pool.pool import Pool

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}
OUTBOUND = OutboundSettings.model_validate({"networks": ["127.0.0.0/8"]})
PROMPT = "a red circle with a secret"
STAGES = ["load", "load_adapters", "read_inputs", "encode_prompt", "encode_inputs", "denoise", "decode", "write"]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> OpenTelemetryTracing:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OpenTelemetryTracing(provider)


@contextmanager
def api(settings: SharedSettings, tracing: OpenTelemetryTracing) -> Iterator[TestClient]:
    app = create_app(ApiSettings(shared=settings, outbound=OUTBOUND), tracing)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def submit(client: TestClient, headers: Mapping[str, str] = HEADERS, **fields: Any) -> dict[str, Any]:
    body = {"prompt": PROMPT, "seed": 1, "num_inference_steps": 2, "width": 64, "height": 64}
    answer = client.post("/v1/txt2img", json={**body, **fields}, headers=dict(headers))
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def deliver(settings: SharedSettings, tracing: OpenTelemetryTracing, receiver: Receiver, paths: int) -> None:
    """Run a dispatcher in this thread until so many messages have come."""
    connection = connect(settings.redis_url, timeout_seconds=5, retries=0)
    rq_connection = connect(settings.redis_url, timeout_seconds=5, retries=1, decode=False)
    own, counters = WebhookSettings(poll_seconds=0.05), Counters()
    dispatcher = Dispatcher(
        rq_connection,
        Outbox(connection, own.name, own.lease_seconds),
        Poster(OUTBOUND, own.timeout_seconds),
        Secrets(connection, settings),
        LinkSigner(connection, settings, storage=None),
        TotalsWriter(connection, counters),
        counters,
        own,
        tracing,
    )

    def stop() -> None:
        try:
            wait_until(lambda: len(receiver.received) >= paths)
        finally:
            send_sigterm()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        dispatcher.start()
    finally:
        stopper.join()
        connection.close()
        rq_connection.close()


def by_name(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans}


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return int(span.parent.span_id)


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_one_trace_leads_from_the_clients_header_to_the_webhooks_receiver(
    settings: SharedSettings,
    queue: JobQueue,
    pool: Pool,
    storage: Storage,
    tracing: OpenTelemetryTracing,
    exporter: InMemorySpanExporter,
) -> None:
    with receiving() as receiver, api(settings, tracing) as client:
        webhook = {"url": f"{receiver.url}/hook?token=hidden", "events": ["completed"]}
        job = submit(client, webhook=webhook)
        assert job["trace_id"] == TRACE
        (record,) = work_until_ended(make_consumer(settings, pool, storage, tracing=tracing), queue, job["id"])
        assert record.state is JobState.COMPLETED
        deliver(settings, tracing, receiver, 1)
        assert client.get(f"/v1/jobs/{job['id']}").json()["trace_id"] == TRACE
    spans = [span for span in exporter.get_finished_spans() if "/v1/jobs" not in span.name]
    found = by_name(spans)
    assert len(found) == len(spans)
    assert {f"{span.context.trace_id:032x}" for span in spans if span.context} == {TRACE}

    route, submitted = found["POST /v1/txt2img"], found["submit shapes-sdxl"]
    attempt, sent = found["process shapes-sdxl"], found["POST webhook"]
    assert parent_of(route) == int(CALLER, 16)
    assert parent_of(submitted) == id_of(route)
    assert {parent_of(span) for span in (found["queue"], attempt, sent)} == {id_of(submitted)}
    assert [span.name for span in spans if span.parent and parent_of(span) == id_of(attempt)] == STAGES
    assert attributes_of(found["denoise"]) == {"darkroom.steps": 2}

    shown = attributes_of(route)
    assert (shown["http.route"], shown["http.response.status_code"]) == ("/v1/txt2img", 202)
    shown = attributes_of(attempt)
    assert (shown["messaging.message.id"], shown["messaging.destination.name"]) == (job["id"], "shapes-sdxl")
    assert (shown["darkroom.attempt"], shown["darkroom.outcome"]) == (1, "completed")
    assert attributes_of(sent)["http.response.status_code"] == 200
    for span in spans:
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
    text = json.dumps([json.loads(span.to_json()) for span in spans])
    for secret in (PROMPT, "secret", "hidden", "signature", str(settings.data), "/hook"):
        assert secret not in text

    (message,) = receiver.received
    context = read_trace_context([message.headers["traceparent"]], [message.headers["tracestate"]])
    assert context is not None
    assert (context.trace_id, int(context.span_id, 16), context.state) == (TRACE, id_of(sent), "vendor=1")


def test_a_second_attempt_is_a_span_of_its_own_in_the_same_trace(
    settings: SharedSettings,
    queue: JobQueue,
    pool: Pool,
    storage: Storage,
    tracing: OpenTelemetryTracing,
    exporter: InMemorySpanExporter,
) -> None:
    with api(settings, tracing) as client:
        id = submit(client)["id"]
    consumer = make_consumer(settings, pool, storage, tracing=tracing, drain_seconds=0.0)
    with at_step(1, id, send_sigterm):
        consumer.start([])
    assert queue.fetch(id).state is JobState.QUEUED
    work_until_ended(make_consumer(settings, pool, storage, tracing=tracing), queue, id)
    spans = exporter.get_finished_spans()
    first, second = (span for span in spans if span.name == "process shapes-sdxl")
    outcomes = [attributes_of(span)["darkroom.outcome"] for span in (first, second)]
    assert outcomes == ["released", "completed"]
    assert id_of(first) != id_of(second)
    assert parent_of(first) == parent_of(second) == id_of(by_name(spans)["submit shapes-sdxl"])
    assert len({span.context.trace_id for span in spans if span.context}) == 1


def test_a_job_that_fails_marks_its_attempt_with_the_code_and_not_the_message(
    settings: SharedSettings,
    queue: JobQueue,
    pool: Pool,
    storage: Storage,
    tracing: OpenTelemetryTracing,
    exporter: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with api(settings, tracing) as client:
        id = submit(client, headers={})["id"]

    def fail(watch: JobWatch, step: int, steps: int) -> None:
        raise RuntimeError(f"cannot draw {PROMPT}")

    monkeypatch.setattr(JobWatch, "step", fail)
    (record,) = work_until_ended(make_consumer(settings, pool, storage, tracing=tracing), queue, id)
    assert record.state is JobState.FAILED
    found = by_name(exporter.get_finished_spans())
    assert attributes_of(found["process shapes-sdxl"])["error.type"] == "internal"
    assert not found["process shapes-sdxl"].status.is_ok
    assert "secret" not in found["process shapes-sdxl"].to_json()


def test_hostile_headers_and_paths_neither_fail_a_request_nor_get_into_a_trace(
    settings: SharedSettings, tracing: OpenTelemetryTracing, exporter: InMemorySpanExporter
) -> None:
    with api(settings, tracing) as client:
        for traceparent in ("", "00-1-2-3", "x" * 4000, f"00-{'0' * 32}-{CALLER}-01"):
            job = submit(client, headers={"traceparent": traceparent, "tracestate": "a=1," * 900})
            route = exporter.get_finished_spans()[-1]
            assert (route.name, route.parent) == ("POST /v1/txt2img", None)
            assert route.context is not None
            assert job["trace_id"] == f"{route.context.trace_id:032x}"
        exporter.clear()
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/jobs/no-such-job?signature=hidden").status_code in (404, 422)
        assert client.get("/nowhere/with/a/hidden-key").status_code == 404
    assert [span.name for span in exporter.get_finished_spans()] == ["GET /v1/jobs/{id}", "GET other"]
    assert "hidden" not in "".join(span.to_json() for span in exporter.get_finished_spans())
